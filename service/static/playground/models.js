// The models panel: versions, figures, functions, and every parameter with its arithmetic.

import { get, send } from "./api.js";
import { byId, count, html, number, tell } from "./dom.js";
import { Record } from "./request.js";

export async function start(models) {
  const record = new Record("models");
  const paths = new Set(models.filter(({ state }) => state === "serving").map(({ model }) => `models/${model}`));
  const fetched = async (path) => {
    paths.add(path);
    return (await send(get(path))).document;
  };
  try {
    const cards = await Promise.all(models.map(async ({ model }) => {
      const details = await fetched(`models/${model}`);
      const counted = details.parameters !== null && details.parameters !== undefined;
      return card(details, counted ? await fetched(`models/${model}/summary`) : null);
    }));
    record.set(["models", ...[...paths].sort()].map(get));
    byId("models-list").replaceChildren(...cards);
  } catch (error) {
    tell("models", error);
  }
}

const percent = (share) => `${(share * 100).toFixed(2)} %`;

/** A classifier's scores: a row for each set of images, the test images first. */
function scores({ metrics, classes }) {
  const chance = (k) => ` (chance ${number((k * 100) / classes.length, 3)} %)`;
  const figures = [["top1", `top-1${chance(1)}`, percent], ["top5", `top-5${chance(5)}`, percent], ["loss", "loss", (value) => value.toFixed(4)]]
    .filter(([key]) => key in metrics);
  const head = html("tr", {}, html("th", { scope: "col" }, "images"), figures.map(([, name]) => html("th", { scope: "col", class: "right" }, name)));
  const rows = Object.keys(metrics.top1 ?? {}).reverse().map((split) => html("tr", {}, html("th", { scope: "row" }, split),
    figures.map(([key, , form]) => html("td", { class: "right" }, typeof metrics[key][split] === "number" ? form(metrics[key][split]) : "–"))));
  return rows.length ? html("table", { class: "scores" }, html("thead", {}, head), html("tbody", {}, rows)) : "";
}

/** The headline figures of any other model's metrics, by kind: pairs of words and text. */
function headline({ kind, metrics }) {
  if (kind === "curve") {
    const names = { mse: "mean squared error", leave_one_out_mse: "the same, each point left out", degree: "degree" };
    return Object.entries(names).filter(([key]) => key in metrics).map(([key, words]) => [words, number(metrics[key])]);
  }
  return Object.entries(metrics.largest_difference ?? {}).map(([other, difference]) =>
    [`largest difference from ${other}`, number(difference, 2)]);
}

function card(details, summary) {
  const versions = details.versions.map(({ version, state, reason }) => `version ${version} is ${state}${reason ? ` (${reason})` : ""}`);
  const name = details.model;
  const article = html("article", { class: "model", "data-model": name },
    html("h3", {}, name, " ", html("small", {}, details.version ? `version ${details.version}` : details.state)),
    html("p", {}, versions.length ? `${versions.join("; ").replace("v", "V")}.` : "There is no version."));
  if (details.state !== "serving") return article;
  const functions = Object.entries(details.functions).map(([key, f]) =>
    html("li", {}, html("code", {}, key), ` in ${f.precision}, within ${number(f.maximum_absolute_error, 2)} of PyTorch`));
  article.append(
    details.kind === "classifier" ? scores(details) : html("dl", { class: "figures" }, headline(details).map(([words, text]) =>
      html("div", {}, html("dt", {}, words), html("dd", {}, text)))),
    html("p", {}, html("a", { href: `models/${name}/report` }, `Report of ${name}`),
      `, published ${new Date(details.created_utc).toISOString().slice(0, 10)}`),
    html("details", {}, html("summary", {}, "Functions"), html("ul", {}, functions)),
    summary ? html("details", {}, html("summary", {}, `${count(summary.total)} parameters, ${count(summary.multiply_adds)} multiply-adds`),
      parameters(summary)) : "",
  );
  return article;
}

function parameters(summary) {
  const columns = ["Layer", "Type", "Kernel", "Output", "Arithmetic", "Parameters", "Multiply-adds"];
  // On a narrow screen a row becomes a list, each cell with its heading.
  const cell = (column, text) => html("td", { class: column > 4 ? "right" : false, "data-label": columns[column] }, text);
  const rows = summary.layers.map((layer) =>
    html("tr", {},
      html("th", { scope: "row" }, layer.name), cell(1, layer.type), cell(2, layer.kernel ?? ""),
      cell(3, layer.output_shape.join("×")), cell(4, layer.formula),
      cell(5, count(layer.count)), cell(6, count(layer.multiply_adds))));
  const total = html("tr", {}, html("th", { scope: "row", colspan: 5 }, "Total"),
    cell(5, count(summary.total)), cell(6, count(summary.multiply_adds)));
  return html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Parameters of ${summary.model}` },
    html("table", {}, html("thead", {}, html("tr", {}, columns.map((c) => html("th", { scope: "col" }, c)))),
      html("tbody", {}, rows), html("tfoot", {}, total)));
}
