// The panel for points of one's own: a polynomial fitted in the page, its band and its tangent.

import { byId, files, html, number, svg, tell, typed } from "./dom.js";
import { Frame, range } from "./plot.js";
import { choose, fits, isTable, parse, quantile } from "./polynomial.js";

const SAMPLES = 161; // x at which the fit is drawn
const MARGIN = 0.1; // of the data's width, shown beyond it on both sides
const LEVEL = 0.95;

export async function start() {
  new PointsPanel();
}

class PointsPanel {
  constructor() {
    this.text = byId("points-text");
    this.slider = byId("points-degree");
    this.x = byId("points-x");
    this.text.addEventListener("input", () => this.read());
    this.slider.addEventListener("input", () => this.show());
    this.x.addEventListener("input", () => this.show());
    byId("points-form").addEventListener("submit", (event) => event.preventDefault());
    byId("points-example").addEventListener("click", () => {
      this.text.value = byId("points-example").dataset.points;
      this.read();
    });
    files(byId("points-drop"), byId("points-file"), async (chosen) => {
      const text = await chosen.text();
      this.text.value = isTable(text) ? text : ""; // nobody mends a picture by hand
      this.read(text, false);
    });
    new ResizeObserver(() => this.show()).observe(byId("points-plots").parentNode);
  }

  /** New points: fitted by every degree; leave-one-out error chooses the one shown. An emptied field is no error. */
  read(text = this.text.value, typing = true) {
    try {
      const { points, said } = parse(text);
      this.points = points;
      this.fits = fits(points);
      byId("points-read").textContent = said;
      tell("points");
    } catch (error) {
      this.points = null;
      tell("points", typing && text.trim() === "" ? null : error);
    }
    byId("points-result").hidden = !this.points;
    if (!this.points) return;
    this.best = choose(this.fits);
    this.slider.max = this.fits.length - 1;
    this.slider.value = this.best;
    this.x.value = String(Number(((this.points[0][0] + this.points.at(-1)[0]) / 2).toPrecision(4)));
    this.show();
  }

  show() {
    if (!this.points) return;
    const fitted = this.fits[Number(this.slider.value)];
    const reach = fitted.freedom > 0 ? quantile(LEVEL, fitted.freedom) : NaN;
    const x = typed(this.x.value);
    const readable = typeof x === "number";
    if (readable) this.x.removeAttribute("aria-invalid");
    else this.x.setAttribute("aria-invalid", "true");
    tell("points", readable ? null : new Error("x is not a number: write it as 0.5."));
    byId("points-degree-name").textContent = fitted.degree;
    const here = readable ? [0, 1].map((order) => fitted.at(x, order)) : [];
    const outside = readable && (x < this.points[0][0] || x > this.points.at(-1)[0]);
    const likely = ({ value, error }) => `95 %: ${number(value - reach * error, 4)} to ${number(value + reach * error, 4)}`;
    const figures = {
      mse: number(fitted.mse, 4),
      "leave-one-out": `${number(fitted.leaveOneOut, 4)}${fitted.degree === this.best ? ", which chose this degree" : `; it chose degree ${this.best}`}`,
      value: readable ? number(here[0].value, 6) : "–",
      "interval-0": readable && !outside ? likely(here[0]) : "",
      slope: readable ? number(here[1].value, 6) : "–",
      "interval-1": readable && !outside ? likely(here[1]) : outside ? "outside the data: a guess" : "",
    };
    for (const [name, text] of Object.entries(figures)) {
      byId("points-result").querySelector(`[data-figure="${name}"]`).textContent = text;
    }
    this.draw(fitted, reach, readable ? x : null);
  }

  draw(fitted, reach, x) {
    const place = byId("points-plots");
    const width = place.clientWidth;
    if (!width) return;
    const [low, high] = [this.points[0][0], this.points.at(-1)[0]];
    const pad = (high - low) * MARGIN;
    const view = [low - pad, high + pad];
    const xs = Array.from({ length: SAMPLES }, (_, i) => view[0] + ((view[1] - view[0]) * i) / (SAMPLES - 1));
    const dashed = xs.map((each) => each < low || each > high);
    place.replaceChildren(...[0, 1].map((order) => {
      const found = xs.map((each) => fitted.at(each, order));
      const ys = found.map(({ value }) => value);
      const inside = ys.filter((_, i) => !dashed[i]);
      const heights = range(order ? inside : [...inside, ...this.points.map((point) => point[1])], 0.15);
      const height = order ? 190 : Math.max(240, Math.min(400, width * 0.5));
      const frame = new Frame(width, height, view, heights);
      const id = `points-clip-${order}`;
      const drawn = [...frame.line(xs, ys, dashed, "fit fit-2")];
      // Outside the data a band of one degree says nothing.
      const sure = xs.map((each, i) => [each, found[i]]).filter((_, i) => !dashed[i]);
      const intervals = sure.map(([, { value, error }]) => [value - reach * error, value + reach * error]);
      if (Number.isFinite(reach)) drawn.unshift(frame.band(sure.map(([each]) => each), intervals, "band fit-2"));
      if (x !== null && x >= view[0] && x <= view[1]) {
        const { value } = fitted.at(x, order);
        if (!order) {
          const slope = fitted.at(x, 1).value;
          const line = (to) => frame.py(value + slope * (to - x));
          drawn.push(svg("line", { class: "tangent", x1: frame.px(view[0]), x2: frame.px(view[1]), y1: line(view[0]), y2: line(view[1]) }));
        }
        drawn.push(svg("circle", { class: "handle", r: 6, cx: frame.px(x), cy: frame.py(value) }));
      }
      const dots = order ? [] : this.points.map(([px, py]) => svg("circle", { cx: frame.px(px), cy: frame.py(py), r: 3.5, class: "data" }));
      const words = order ? "f′ of the polynomial, with its band" : "The points, the polynomial with its band, and the tangent";
      return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words },
        frame.clip(id), frame.shade([low, high], { class: "domain" }), frame.axes(), ...dots,
        svg("g", { "clip-path": `url(#${id})` }, ...drawn),
        svg("text", { x: frame.left + 8, y: frame.top + 16, class: "slope" }, order ? "f′" : "f"));
    }));
    byId("points-degrees").replaceChildren(this.table());
  }

  /** The errors of every degree. */
  table() {
    const cells = (each) => [each.degree, number(each.mse, 3), number(each.leaveOneOut, 3)];
    return html("table", {}, html("thead", {}, html("tr", {}, ["degree", "MSE", "leave-one-out MSE"].map((head) => html("th", { scope: "col" }, head)))),
      html("tbody", {}, this.fits.map((each) => html("tr", {}, cells(each).map((cell) => html("td", {}, String(cell)))))));
  }
}
