// f′ at three places, and what is in a picture, with Go's own HTTP client.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func post(url, kind string, body io.Reader) {
	answer, err := http.Post(url, kind, body)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		log.Fatal(answer.Status, ": ", string(text), err)
	}
	fmt.Println(string(text))
}

func main() {
	address := "http://127.0.0.1:8000"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	post(address+"/gradient", "application/json", bytes.NewBufferString(`{"x": [3.0, 0.1, -0.5]}`))
	picture, err := os.ReadFile("examples/cat.jpg")
	if err != nil {
		log.Fatal(err)
	}
	post(address+"/classify?top_k=1", "image/jpeg", bytes.NewReader(picture))
}
