// A client whose types openapi-typescript generates from our document: node client.js URL PICTURE
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [url, picture] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

function check(condition: unknown, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}

const slopes = await client.POST("/gradient", {
  body: { x: [0.5, 2.0], model: "curve-mlp", order: 1 },
});
check(slopes.data?.gradient.length === 2, slopes.error);

const found = await client.POST("/evaluate", {
  body: { model: "curve-mlp", inputs: { x: [0.5, 2.0] }, outputs: ["gradient"] },
});
check(JSON.stringify(found.data?.outputs.gradient) === JSON.stringify(slopes.data.gradient), found);

const answer = await client.POST("/v2/models/{model}/infer", {
  params: { path: { model: "curve-mlp" } },
  body: {
    inputs: [{ name: "x", shape: [2], datatype: "FP64", data: [0.5, 2.0] }],
    outputs: [{ name: "gradient" }],
  },
});
check(answer.data?.outputs.length === 1, answer.error);

const form = new FormData();
form.append("file", new Blob([await readFile(picture)], { type: "image/png" }), "blue.png");
const named = await client.POST("/classify", {
  params: { query: { top_k: 1 } },
  body: form as never, // openapi-fetch sends a form as it is
});
check(named.data && named.data.results[0].top[0].probability > 0, named.error);
console.log("a generated TypeScript client works");
