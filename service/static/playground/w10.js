// The w10 panel: a small network to edit, its gradients as heat maps, and gradient descent.

import { latest, postJson, send } from "./api.js";
import { derivation } from "./derivation.js";
import { byId, html, number, tell, typed } from "./dom.js";
import { Record } from "./request.js";

export async function start() {
  await new W10Panel().update();
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
    this.steps = 0;
    this.update = latest(() => this.ask());
    this.form.addEventListener("input", ({ target }) => {
      if (this.cells.includes(target)) this.restart();
      else if (target !== this.rate) this.update();
    });
    this.form.addEventListener("reset", () => setTimeout(() => this.restart()));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.descend();
    });
  }

  /** Something was changed by hand: what was descended before is another story. */
  restart() {
    this.steps = 0;
    this.update();
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
    this.show();
  }

  /** One step down the gradient by kernel and weights; then everything anew. */
  async descend() {
    const rate = typed(this.rate.value);
    this.rate.toggleAttribute("aria-invalid", typeof rate !== "number");
    if (typeof rate !== "number") {
      tell("w10", new Error("The learning rate is not a number."));
      return;
    }
    if (!this.answer) return;
    const { gradients, loss } = this.answer;
    for (const cell of this.cells) {
      const [grid, row, column] = cell.dataset.path.split("/");
      if (grid !== "kernel" && grid !== "weights") continue;
      const gradient = grid === "kernel" ? gradients.kernel[row][column] : gradients.weights[row];
      cell.value = String(Number((typed(cell.value) - rate * gradient).toPrecision(12)));
    }
    this.steps += 1;
    this.before = loss;
    await this.update();
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
    const rose = this.steps > 0 && answer.loss > this.before;
    const figures = {
      prediction: number(answer.prediction, 6),
      loss: number(answer.loss, 6),
      parameter: `∂loss/∂w10, ${answer.w10.parameter}`,
      gradient: number(answer.w10.gradient, 6),
      descent: this.steps
        ? `step ${this.steps}: loss ${number(this.before)} → ${number(answer.loss)}${rose ? "; it rose: take a smaller learning rate" : ""}`
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
