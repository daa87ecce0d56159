// f′ at three places, and what is in a picture, with Java's own HTTP client.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

public class WithJava {
    // By default this client offers to upgrade to HTTP/2 with every request: the service ignores that.
    private static final HttpClient client = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        String address = arguments.length > 0 ? arguments[0] : "http://127.0.0.1:8000";
        Path picture = Path.of(arguments.length > 1 ? arguments[1] : "examples/cat.jpg");
        post(address + "/gradient", "application/json", BodyPublishers.ofString("{\"x\": [3.0, 0.1, -0.5]}"));
        post(address + "/classify?top_k=1", "image/jpeg", BodyPublishers.ofFile(picture));
    }

    private static void post(String url, String type, HttpRequest.BodyPublisher body) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url)).header("Content-Type", type).POST(body).build();
        var answer = client.send(request, BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException(answer.statusCode() + ": " + answer.body());
        }
        System.out.println(answer.body());
    }
}
