// f′ at three places, and what is in a picture, with fetch.
import { readFile } from "node:fs/promises";

const address = process.argv[2] ?? "http://127.0.0.1:8000";

async function post(path, options) {
  const answer = await fetch(address + path, { method: "POST", ...options });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.detail);
  return document;
}

const { gradient } = await post("/gradient", {
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ x: [3.0, 0.1, -0.5] }),
});
console.log(gradient);

const form = new FormData();
form.append("file", new Blob([await readFile(new URL("cat.jpg", import.meta.url))]), "cat.jpg");
const { results } = await post("/classify?top_k=1", { body: form });
console.log(results[0].top[0].label);
