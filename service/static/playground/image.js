// The image panel: a picture, what each network takes it for, and the pixels that speak for it.

import { get, latest, postFile, send } from "./api.js";
import { camera } from "./camera.js";
import { byId, files, html, lacking, tell } from "./dom.js";
import { Record } from "./request.js";

const TOP = 5;
const LIKELIEST = "";
const UNFAMILIAR = 0.05; // one in twenty pictures of its own kinds

/** In words how familiar a picture is, from the share of validation pictures that are less so. */
function familiarity(share) {
  const less = `Less familiar than ${Math.round((1 - share) * 100)} % of the pictures that it was checked with`;
  return share < UNFAMILIAR ? `${less}: it may be of none of its classes` : less;
}

const percent = (share) => `${(share * 100).toFixed(1)} %`;

export async function start(models) {
  const names = models.filter((model) => model.kind === "classifier").map((model) => model.model);
  try {
    if (!names.length) throw lacking("image classifier", models);
    const details = await Promise.all(names.map(async (name) => (await send(get(`models/${name}`))).document));
    new ImagePanel(details);
  } catch (error) {
    tell("image", error);
  }
}

class ImagePanel {
  constructor(models) {
    this.models = models;
    this.record = new Record("image");
    this.select = byId("image-label");
    this.side = models[0].functions.probabilities.inputs[0].shape[1];
    this.look = latest(() => this.ask());
    const classes = [...new Set(models.flatMap((model) => model.classes))];
    this.select.replaceChildren(
      html("option", { value: LIKELIEST }, "the likeliest of each"),
      ...classes.map((name) => html("option", { value: name }, name)),
    );
    this.select.addEventListener("change", () => this.look());
    byId("image-again").addEventListener("click", () => this.look());
    byId("image-strength").addEventListener("input", () => this.fade());
    this.listen();
  }

  listen() {
    const take = (file) => this.open(file, file.name || "picture.png");
    files(byId("image-drop"), byId("image-file"), take);
    document.addEventListener("paste", (event) => {
      const file = [...event.clipboardData.files].find((pasted) => pasted.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      take(file);
    });
    for (const button of document.querySelectorAll("[data-example]")) {
      button.addEventListener("click", async () => {
        const path = button.dataset.example;
        const response = await fetch(path).catch(() => null);
        if (response?.ok) this.open(await response.blob(), path.split("/").pop());
        else tell("image", new Error("The service did not give that picture. Is it running?"));
      });
    }
    camera((blob) => this.open(blob, "camera.jpg"), (error) => tell("image", error));
  }

  /** A new picture: the map is again that of the likeliest class. */
  open(file, name) {
    this.select.value = LIKELIEST;
    Object.assign(this, { file, name });
    byId("image-name").textContent = name;
    byId("image-chosen").hidden = false;
    this.look();
  }

  /** Let every network classify the picture and explain a class of it. */
  async ask() {
    const { file, name } = this;
    const label = this.select.value;
    const wanted = label === LIKELIEST ? "" : `&label=${encodeURIComponent(label)}`;
    const pairs = this.models.map(({ model }) => [
      postFile(`classify?model=${model}&top_k=${TOP}`, file, name),
      postFile(`explain?model=${model}&top_k=${TOP}${wanted}`, file, name),
    ]);
    this.record.set(pairs.flat());
    tell("image");
    const answers = [];
    try {
      // One after the other: each is then timed alone.
      for (const [classify, explain] of pairs) {
        const classified = await send(classify);
        answers.push({ classified, explained: await send(explain) });
      }
    } catch (error) {
      // What is shown would be of another picture.
      this.shown = null;
      byId("image-result").hidden = true;
      byId("image-networks").replaceChildren();
      byId("image-said").textContent = "";
      tell("image", error);
      return;
    }
    if (this.shown !== file) this.showFile(file, name, answers[0].explained.document);
    byId("image-networks").replaceChildren(...answers.map((answer) => this.network(answer)));
    byId("image-said").textContent = answers.map(({ classified: { document } }) => {
      const [first] = document.results[0].top;
      return `${document.model}: ${first.label}, ${percent(first.probability)}`;
    }).join("; ");
    byId("image-result").hidden = false;
    this.fade();
  }

  showFile(file, name, { image, seen }) {
    this.shown = file;
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(file);
    byId("image-seen").src = seen;
    byId("image-size").textContent = `${this.side}×${this.side}`;
    byId("image-facts").textContent = `The file, ${name}, is a ${image.format} of ${image.width}×${image.height} pixels.`;
    Object.assign(byId("image-save"), { href: this.url, download: name });
  }

  network({ classified, explained }) {
    const { model, version, results } = classified.document;
    const { familiar } = results[0];
    const { saliency } = explained.document;
    const bars = results[0].top.map(({ label, probability }) => {
      const bar = html("span", { class: "bar" }, html("span"));
      bar.firstChild.style.width = `${probability * 100}%`;
      return html("li", {}, html("span", { class: "label" }, label), bar,
        html("span", { class: "percent" }, percent(probability)));
    });
    const picture = html("div", { class: "square" },
      html("img", { src: this.url, alt: "The picture" }),
      html("img", { src: saliency.png, class: "map", alt: `Saliency map of ${saliency.label}` }));
    const milliseconds = (answer) => `${Math.max(1, Math.round(answer.milliseconds))} ms`;
    return html("article", { class: "network", "data-model": model },
      html("h3", {}, `${model} `, html("small", {}, `version ${version}`)),
      html("figure", {}, picture, html("figcaption", {}, "The pixels that matter to ", html("strong", {}, saliency.label),
        `, whose probability is ${percent(saliency.probability)}. `,
        html("span", { class: "map-key" }, "little", html("span", { class: "map-scale" }), "most"))),
      html("ol", { class: "bars", "aria-label": `Likeliest classes by ${model}` }, bars),
      ...(familiar === undefined ? [] : [html("p", { class: "familiar" }, familiarity(familiar))]),
      html("p", { class: "time" }, `Classified in ${milliseconds(classified)}, explained in ${milliseconds(explained)}, with the way there and back`));
  }

  fade() {
    for (const map of document.querySelectorAll("#image-networks .map")) map.style.opacity = byId("image-strength").value / 100;
  }
}
