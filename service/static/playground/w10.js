// The w10 panel: a small network to edit, its gradients as heat maps, gradient descent, and marking.

import { latest, postJson, send } from "./api.js";
import { derivation } from "./derivation.js";
import { byId, digitsBeside, html, lacking, number, svg, tell, typed } from "./dom.js";
import { Frame, range } from "./plot.js";
import { Record } from "./request.js";

const MANY = 20; // steps of the second button
const STEEP = 100; // a loss that changes by more than this factor is drawn on a logarithmic scale

export async function start(models) {
  const panel = new W10Panel();
  if (models.some(({ model, state }) => model === "sigmoid-conv" && state === "serving")) await panel.update();
  else tell("w10", lacking("model called sigmoid-conv", models));
}

/** What a cell is called: by row and column, or counted through, as the homework may mean it. */
export function nameOf(path, naming) {
  const [grid, row, column] = path.split("/");
  if (grid === "label") return "y";
  if (grid === "input") return `x${row}${column}`;
  if (naming === "sequential") return `w${grid === "kernel" ? 3 * Number(row) + Number(column) + 1 : 10 + Number(row)}`;
  return grid === "kernel" ? `w${row}${column}` : `v${row}`;
}

class W10Panel {
  constructor() {
    this.record = new Record("w10");
    this.form = byId("w10-form");
    this.cells = [...this.form.querySelectorAll("[data-path]")];
    this.rate = byId("w10-rate");
    this.slider = byId("w10-slider");
    this.losses = []; // before the first step, and after each
    this.update = latest(() => this.ask());
    this.form.addEventListener("input", ({ target }) => {
      if (this.cells.includes(target)) this.restart();
      else if (target === this.slider) this.rate.value = String(Number((10 ** target.value).toPrecision(2)));
      else if (target === this.rate) this.slide();
      else this.update();
    });
    this.form.addEventListener("reset", () => setTimeout(() => this.restart()));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.descend(1);
    });
    byId("w10-many").addEventListener("click", () => this.descend(MANY));
    new ResizeObserver(() => this.drawLosses()).observe(byId("w10-losses").parentNode);
    this.listenToAnswers();
  }

  listenToAnswers() {
    const form = byId("w10-answer");
    this.own = [...form.querySelectorAll("[data-own]")];
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.check();
    });
    form.addEventListener("input", () => this.clearMarks());
    form.addEventListener("reset", () => this.clearMarks());
  }

  /** Something was changed by hand: what was descended before is another story. */
  restart() {
    this.losses = [];
    this.clearMarks();
    this.update();
  }

  /** The slider follows the rate that was typed. */
  slide() {
    const rate = typed(this.rate.value);
    if (rate > 0) this.slider.value = Math.log10(rate);
  }

  naming() {
    return this.form.elements.naming.value;
  }

  /** The document that the form describes; what is no number goes as it is. */
  query() {
    const query = { input: [[], [], [], []], kernel: [[], [], []], weights: [], label: null, naming: this.naming() };
    for (const cell of this.cells) {
      const keys = cell.dataset.path.split("/");
      const last = keys.pop();
      keys.reduce((place, key) => place[key], query)[last] = typed(cell.value);
    }
    return query;
  }

  async ask() {
    const request = postJson("w10-gradient", this.query());
    this.record.set([request]);
    this.nameCells(request.json.naming);
    this.mark([]);
    try {
      this.answer = (await send(request)).document;
      this.asked = request.json;
    } catch (error) {
      this.answer = null;
      this.mark((error.errors ?? []).map((item) => item.pointer?.replace("#/", "")));
      tell("w10", error);
      return;
    }
    tell("w10");
    if (this.descending) this.losses.push(this.answer.loss);
    this.show();
  }

  /** Steps down the gradient by kernel and weights, everything anew after each. */
  async descend(count) {
    const rate = typed(this.rate.value);
    const good = typeof rate === "number" && rate > 0;
    if (good) this.rate.removeAttribute("aria-invalid");
    else this.rate.setAttribute("aria-invalid", "true");
    if (!good) {
      tell("w10", new Error("The learning rate is no positive number."));
      return;
    }
    for (let n = 0; n < count && this.answer; n += 1) {
      const { gradients, loss } = this.answer;
      const before = this.cells.map((cell) => cell.value);
      if (!this.losses.length) this.losses = [loss];
      for (const cell of this.cells) {
        const [grid, row, column] = cell.dataset.path.split("/");
        if (grid !== "kernel" && grid !== "weights") continue;
        const gradient = grid === "kernel" ? gradients.kernel[row][column] : gradients.weights[row];
        cell.value = String(Number((typed(cell.value) - rate * gradient).toPrecision(12)));
      }
      this.clearMarks();
      this.descending = true;
      await this.ask();
      this.descending = false;
      if (!this.answer) {
        // The numbers of the last step that could be worked with stay.
        this.cells.forEach((cell, i) => (cell.value = before[i]));
        await this.ask();
        tell("w10", new Error(`It diverges: after step ${this.losses.length - 1} the numbers grow too large. Take a smaller learning rate.`));
        return;
      }
    }
  }

  /** The student's own numbers, by step; null if there is none. */
  answers() {
    const found = {};
    for (const field of this.own.filter(({ value }) => value.trim() !== "")) {
      const [name, row, column] = field.dataset.own.split("/");
      if (row === undefined) found[name] = typed(field.value);
      else {
        found[name] ??= [[null, null], [null, null]];
        found[name][row][column] = typed(field.value);
      }
    }
    return Object.keys(found).length ? found : null;
  }

  /** Have the student's numbers marked by the API, and show what it says. */
  async check() {
    const answer = this.answers();
    const place = byId("w10-marks");
    this.clearMarks();
    if (!answer) {
      place.replaceChildren(html("p", {}, "Type a number first."));
      return;
    }
    const request = postJson("w10-gradient", { ...this.query(), answer });
    this.record.set([request]);
    try {
      this.showMarks((await send(request)).document.marking);
    } catch (error) {
      const places = (error.errors ?? []).map((item) => item.pointer?.replace("#/answer/", ""));
      for (const field of this.own) if (places.includes(field.dataset.own)) field.setAttribute("aria-invalid", "true");
      const said = (error.errors ?? []).map((item) => `${item.pointer?.replace("#/", "").replaceAll("/", ", ")}: ${item.detail}`);
      place.replaceChildren(html("p", { class: "problem" }, said.join("; ") || error.message));
    }
  }

  showMarks(marking) {
    const titles = Object.fromEntries(this.own.map((field) => [field.dataset.own.split("/")[0],
      field.closest(".cell, fieldset").querySelector(".name").textContent]));
    byId("w10-marks").replaceChildren(
      html("p", { class: marking.correct ? "right-answer" : "warning" }, marking.message),
      html("ul", {}, marking.steps.map(({ step, message }) => html("li", {}, html("strong", {}, titles[step]), `: ${message}`))),
    );
    for (const field of this.own.filter(({ value }) => value.trim() !== "")) {
      const [name, row, column] = field.dataset.own.split("/");
      const step = marking.steps.find((each) => each.step === name);
      const wrong = row === undefined ? !step.correct : step.wrong.some(([i, j]) => `${i}${j}` === `${row}${column}`);
      if (wrong) field.setAttribute("aria-invalid", "true");
    }
  }

  clearMarks() {
    byId("w10-marks").replaceChildren();
    for (const field of this.own) field.removeAttribute("aria-invalid");
  }

  mark(paths) {
    for (const cell of this.cells) {
      if (paths.includes(cell.dataset.path)) cell.setAttribute("aria-invalid", "true");
      else cell.removeAttribute("aria-invalid");
    }
  }

  nameCells(naming) {
    const w10 = naming === "sequential" ? "weights/0" : "kernel/1/0";
    for (const place of this.form.querySelectorAll("[data-name]")) {
      place.textContent = nameOf(place.dataset.name, naming);
      place.closest(".cell").classList.toggle("marked", place.dataset.name === w10);
    }
  }

  show() {
    const { answer, asked } = this;
    const steps = this.losses.length - 1;
    const rose = steps > 0 && answer.loss > this.losses[steps - 1];
    const figures = {
      prediction: number(answer.prediction, digitsBeside(answer.prediction, asked.label, 6)),
      loss: number(answer.loss, 6),
      parameter: `∂loss/∂w10, ${answer.w10.parameter}`,
      gradient: number(answer.w10.gradient, 6),
      descent: steps > 0
        ? `step ${steps}: loss ${number(this.losses[steps - 1])} → ${number(answer.loss)}${rose ? "; it rose: take a smaller learning rate" : ""}`
        : "no step taken yet",
    };
    for (const [name, text] of Object.entries(figures)) {
      byId("w10-figures").querySelector(`[data-figure="${name}"]`).textContent = text;
    }
    byId("w10-figures").querySelector("[data-figure=descent]").classList.toggle("warning", rose);
    const { kernel, weights, input } = answer.gradients;
    const dense = [weights.slice(0, 2), weights.slice(2)];
    const densePath = (row, column) => `weights/${2 * row + column}`;
    byId("w10-maps").replaceChildren(
      heatMap("∂loss/∂input", input, (row, column) => `input/${row}/${column}`, asked.naming),
      heatMap("∂loss/∂kernel", kernel, (row, column) => `kernel/${row}/${column}`, asked.naming),
      heatMap("∂loss/∂v", dense, densePath, asked.naming),
    );
    byId("w10-derivation").replaceChildren(...derivation(asked, answer));
    this.drawLosses();
  }

  /** The loss by step. */
  drawLosses() {
    const place = byId("w10-losses");
    const { losses } = this;
    place.hidden = losses.length < 2;
    const width = place.clientWidth;
    if (place.hidden || !width) return;
    const steep = Math.max(...losses) > STEEP * Math.min(...losses);
    // Rounding ends a descent at zero, which has no logarithm.
    const ys = losses.map((loss) => (steep ? Math.log10(Math.max(loss, 1e-30)) : loss));
    const xs = losses.map((_, step) => step);
    const frame = new Frame(width, 200, [0, Math.max(xs.length - 1, 5)], range(steep ? ys : [0, ...ys], 0.08), 24);
    const format = steep && (frame.y[0] < -3 || frame.y[1] > 3) ? (y) => `1e${number(y, 3)}` : (y) => number(steep ? 10 ** y : y, 3);
    place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} 216`, role: "img",
      "aria-label": `Loss by step${steep ? ", on a logarithmic scale" : ""}: ${losses.map((loss) => number(loss, 3)).join(", ")}` },
      frame.axes(format),
      svg("g", {}, frame.line(xs, ys, xs.map(() => false), "fit fit-0")),
      ...xs.map((x, i) => svg("circle", { cx: frame.px(x), cy: frame.py(ys[i]), r: 3, class: "data" })),
      svg("text", { x: frame.right, y: frame.bottom + 36, "text-anchor": "end", class: "note" }, "step"),
      svg("text", { x: frame.left, y: 14, class: "note" }, steep ? "loss, logarithmic" : "loss")));
  }
}

/** A gradient as a table whose cells are coloured by sign and size. */
function heatMap(title, rows, pathOf, naming) {
  const w10 = naming === "sequential" ? "weights/0" : "kernel/1/0";
  const peak = Math.max(...rows.flat().map(Math.abs)) || 1;
  const body = rows.map((row, i) => html("tr", {}, row.map((value, j) => {
    const path = pathOf(i, j);
    const cell = html("td", { class: path === w10 ? "marked" : false, "data-gradient": path },
      html("span", { class: "name" }, path === w10 ? `w10` : nameOf(path, naming)), " ", number(value, 3));
    cell.style.setProperty("--size", `${Math.round((Math.abs(value) / peak) * 60)}%`);
    cell.classList.add(value < 0 ? "negative" : "positive");
    return cell;
  })));
  return html("table", { class: "heat" }, html("caption", {}, title), html("tbody", {}, body));
}
