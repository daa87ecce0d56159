// The curve panel: data points, the fits, and a point to drag with its tangent.

import { get, latest, postJson, send } from "./api.js";
import { byId, html, lacking, number, svg, tell, typed } from "./dom.js";
import { Frame, range } from "./plot.js";
import { Record } from "./request.js";

const SAMPLES = 241; // x at which a fit is drawn
const MARGIN = 0.22; // of the data's width, shown beyond it on both sides
const STEPS = 100; // arrow keys from one end of the data to the other
const NARROW = 500; // pixels; a plot under that has the slope above it
const PRIMES = { 1: "f′", 2: "f″" };
const DEVIATIONS = { 0: "value_sd", 1: "gradient_sd", 2: "gradient2_sd" };
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

export async function start(models) {
  const panel = new CurvePanel();
  const names = models.filter((model) => model.kind === "curve").map((model) => model.model);
  try {
    if (!names.length) throw lacking("curve model", models);
    await panel.load(names);
  } catch (error) {
    tell("curve", error);
  }
}

/** A polynomial in words: w_m xᵐ + … + w_0. */
export function equation(coefficients) {
  const degree = coefficients.length - 1;
  const power = (n) => (n === 0 ? "" : n === 1 ? "x" : `x${[...String(n)].map((d) => SUPERSCRIPTS[d]).join("")}`);
  return coefficients.reduce((text, value, i) => {
    const sign = i === 0 ? (value < 0 ? "−" : "") : value < 0 ? " − " : " + ";
    return `${text}${sign}${number(Math.abs(value), 4)} ${power(degree - i)}`.trimEnd();
  }, "f(x) = ");
}

/** Members of a request: the model, and that it should say how sure it is, if it can. */
function sure({ model, functions }, order) {
  return DEVIATIONS[order] in functions ? { model, uncertainty: true } : { model };
}

class CurvePanel {
  constructor() {
    this.record = new Record("curve");
    this.input = byId("curve-x");
    this.select = byId("curve-model");
    this.place = byId("curve-plot");
    this.fits = [];
    this.answers = {};
    this.move = latest(() => this.ask());
    this.build();
  }

  async load(names) {
    const details = await Promise.all(names.map(async (name) => (await send(get(`models/${name}`))).document));
    this.domain = details[0].domain;
    this.points = details[0].metrics.points ?? [];
    const [low, high] = this.domain;
    const pad = (high - low) * MARGIN;
    this.view = [low - pad, high + pad];
    const width = this.view[1] - this.view[0];
    this.xs = Array.from({ length: SAMPLES }, (_, i) => Number((this.view[0] + (width * i) / (SAMPLES - 1)).toPrecision(12)));
    const answers = await Promise.all(details.map((each) => send(postJson("predict", { x: this.xs, ...sure(each, 0) }))));
    this.fits = answers.map(({ document }, i) => ({ ...document, details: details[i], derivatives: {}, intervals: { 0: document.interval } }));
    this.select.replaceChildren(...names.map((name) => html("option", {}, name)));
    // The point starts on the model that the API takes when none is named.
    if (names.includes(this.select.dataset.default)) this.select.value = this.select.dataset.default;
    byId("curve-legend").replaceChildren(
      ...names.map((name, i) => html("span", { class: `key-line fit-${i % 4}` }, name)),
      html("span", { class: "key-band", hidden: true }),
      html("span", { class: "key-point" }, `${this.points.length} data points`),
      html("span", { class: "key-domain" }, "where the data is"),
      html("span", { class: "key-dashed" }, "extrapolated"),
    );
    this.showEquations();
    const inside = this.xs.filter((x) => x >= low && x <= high);
    const first = this.xs.indexOf(inside[0]);
    const heights = this.fits.flatMap((fit) => fit.y.slice(first, first + inside.length));
    this.heights = range([...heights, ...this.points.map(([, y]) => y)], 0.2);
    new ResizeObserver(() => this.draw()).observe(this.place);
    this.move();
  }

  build() {
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    this.drawing = svg("g");
    this.tangent = svg("line", { class: "tangent", "clip-path": "url(#curve-clip)" });
    this.label = svg("text", { class: "slope" });
    this.handle = svg("circle", {
      r: 9, class: "handle", tabindex: 0, role: "slider", "aria-label": "x of the point on the curve",
      onkeydown: (event) => {
        const [low, high] = this.domain;
        const step = (high - low) / STEPS;
        const ends = { Home: low, End: high };
        const to = event.key in ends ? ends[event.key] : this.x() + (moves[event.key] ?? 0) * step;
        if (!(event.key in ends || event.key in moves)) return;
        event.preventDefault();
        this.go(Math.round(to / step) * step);
      },
    });
    this.svg = svg("svg", {
      role: "group", "aria-label": "The data, the fits and the tangent",
      onpointerdown: (event) => {
        if (!this.frame) return;
        event.preventDefault();
        this.svg.setPointerCapture(event.pointerId);
        this.handle.focus({ preventScroll: true });
        this.drag(event);
      },
      onpointermove: (event) => this.svg.hasPointerCapture(event.pointerId) && this.drag(event),
    }, this.drawing, this.tangent, this.handle, this.label);
    this.place.append(this.svg);
    this.input.addEventListener("input", () => this.move());
    this.select.addEventListener("change", () => this.move());
    byId("curve-form").addEventListener("submit", (event) => event.preventDefault());
    byId("curve-form").addEventListener("change", (event) => event.target.name === "order" && this.move());
  }

  x() {
    const value = typed(this.input.value);
    return typeof value === "number" ? value : (this.domain[0] + this.domain[1]) / 2;
  }

  drag(event) {
    const pixel = event.clientX - this.svg.getBoundingClientRect().left;
    this.go(Math.max(this.view[0], Math.min(this.view[1], this.frame.at(pixel))));
  }

  go(x) {
    this.input.value = String(Number(x.toFixed(4)));
    this.move();
  }

  orders() {
    return [...document.querySelectorAll("#curve-form [name=order]:checked")].map((box) => Number(box.value));
  }

  /** The fit that the point is on. */
  fit() {
    return this.fits.find((fit) => fit.model === this.select.value);
  }

  /** Ask for the value and the slope at the point, and for what else is to be drawn. */
  async ask() {
    const x = typed(this.input.value);
    const { details } = this.fit();
    const orders = this.orders();
    const unclear = this.input.value.trim() === "" ? "There is no x: type a number, such as 0.5."
      : typeof x !== "number" && this.input.value.includes(",") ? "A comma may part thousands or decimals: write 1000, or 0.5 with a point."
      : typeof x !== "number" ? "x is not a number: write it as 0.5." : null;
    if (unclear) {
      this.input.setAttribute("aria-invalid", "true");
      tell("curve", new Error(unclear));
      return;
    }
    const requests = [...new Set([1, ...orders])].map((order) => postJson("gradient", { x, order, ...sure(details, order) }));
    if (sure(details, 0).uncertainty) requests.push(postJson("predict", { x, ...sure(details, 0) }));
    this.record.set(requests);
    this.input.removeAttribute("aria-invalid");
    try {
      const missing = this.fits.flatMap((fit) => orders.filter((o) => !fit.derivatives[o]).map((order) => ({ fit, order })));
      const [answers] = await Promise.all([
        Promise.all(requests.map(send)),
        ...missing.map(async ({ fit, order }) => {
          const { document } = await send(postJson("gradient", { x: this.xs, order, ...sure(fit.details, order) }));
          fit.derivatives[order] = document.gradient;
          fit.intervals[order] = document.interval;
        }),
      ]);
      this.answers = Object.fromEntries(answers.map(({ document }) => [document.order ?? 0, document]));
      tell("curve");
    } catch (error) {
      if (error.status === 422) this.input.setAttribute("aria-invalid", "true");
      tell("curve", error);
      return;
    }
    this.draw();
  }

  draw() {
    const width = this.place.clientWidth;
    if (!this.fits.length || !width) return;
    const narrow = width < NARROW;
    const height = Math.max(260, Math.min(430, width * 0.55));
    this.frame = new Frame(width, height, this.view, this.heights, narrow ? 26 : undefined);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.replaceChildren(
      this.frame.clip("curve-clip"),
      this.frame.shade(this.domain, { class: "domain" }),
      this.frame.axes(),
      svg("g", { "clip-path": "url(#curve-clip)" },
        ...this.band(this.frame, 0),
        ...this.fits.flatMap((fit, i) => this.frame.line(this.xs, fit.y, fit.extrapolated, `fit fit-${i % 4}`))),
      ...this.points.map(([x, y]) => svg("circle", { cx: this.frame.px(x), cy: this.frame.py(y), r: 3.5, class: "data" })),
      ...this.outside(),
    );
    this.drawPoint();
    this.drawDerivatives(width);
  }

  /** The word at both ends where there is no data, if there is room for it. */
  outside() {
    const { frame, domain, view } = this;
    if (frame.px(domain[0]) - frame.left < 76) return [];
    return [(view[0] + domain[0]) / 2, (view[1] + domain[1]) / 2].map((x) =>
      svg("text", { x: frame.px(x), y: frame.top + 14, "text-anchor": "middle", class: "note" }, "extrapolated"));
  }

  drawPoint() {
    const answer = this.answers[1];
    if (!answer) return;
    const { frame } = this;
    const [x, y, slope] = [answer.x[0], answer.y[0], answer.gradient[0]];
    const [low, high] = this.view;
    const clamp = (value, a, b) => Math.max(a, Math.min(b, value));
    const at = { x: frame.px(x), y: frame.py(y) };
    const seen = at.x >= frame.left && at.x <= frame.right && at.y >= frame.top && at.y <= frame.bottom;
    const ends = { x1: frame.px(low), x2: frame.px(high), y1: frame.py(y + slope * (low - x)), y2: frame.py(y + slope * (high - x)) };
    for (const [name, value] of Object.entries(ends)) this.tangent.setAttribute(name, value);
    const aria = { valuemin: this.domain[0], valuemax: this.domain[1], valuenow: x,
      valuetext: `x ${number(x)}, f of x ${number(y)}, slope ${number(slope)}${answer.extrapolated[0] ? ", extrapolated" : ""}` };
    for (const [name, value] of Object.entries(aria)) this.handle.setAttribute(`aria-${name}`, value);
    this.handle.classList.toggle("outside", !seen);
    this.handle.setAttribute("cx", clamp(at.x, frame.left, frame.right));
    this.handle.setAttribute("cy", clamp(at.y, frame.top, frame.bottom));
    this.placeLabel(frame, at, slope, seen);
    this.showFigures(answer, x, y, slope);
  }

  /** The slope in words: beside the point, or above a plot that is narrow. */
  placeLabel(frame, at, slope, seen) {
    const narrow = frame.width < NARROW;
    const sideways = at.x < frame.left ? "left of" : at.x > frame.right ? "right of" : at.y < frame.top ? "above" : "below";
    const text = seen ? `slope ${number(slope, 4)}` : `the point is ${sideways} this plot`;
    const leftwards = at.x > frame.width * 0.72;
    // Away from the tangent: under it where it falls to the label's side, over it where it rises.
    const height = seen ? at.y + (leftwards === slope < 0 ? 26 : -16) : at.y;
    const x = seen ? at.x + (leftwards ? -12 : 12) : leftwards ? frame.right - 8 : Math.max(at.x, frame.left + 8);
    this.label.textContent = text;
    this.label.setAttribute("x", narrow ? frame.right : x);
    // Below the words at the top that say where there is no data.
    this.label.setAttribute("y", narrow ? frame.top - 8 : Math.max(frame.top + 34, Math.min(frame.bottom - 6, height)));
    this.label.setAttribute("text-anchor", narrow || leftwards ? "end" : "start");
  }

  /** The band of f (order 0) or a derivative, of the model that the point is on. */
  band(frame, order) {
    const interval = this.fit().intervals[order];
    const key = byId("curve-legend").querySelector(".key-band");
    key.hidden = !this.fit().intervals[0];
    key.textContent = `95 % band of ${this.select.value}`;
    const colour = `fit-${this.fits.indexOf(this.fit()) % 4}`;
    key.className = `key-band ${colour}`;
    // Far outside the data there is no interval.
    const known = this.xs.map((x, i) => [x, interval?.[i]]).filter(([, ends]) => ends && ends[0] !== null);
    return known.length ? [frame.band(known.map(([x]) => x), known.map(([, ends]) => ends), `band ${colour}`)] : [];
  }

  showFigures(answer, x, y, slope) {
    const second = this.answers[2];
    const likely = (order) => {
      const interval = this.answers[order]?.interval?.[0];
      if (interval && interval[0] === null) return "no interval: too far outside the data";
      return interval ? `95 %: ${number(interval[0], 4)} to ${number(interval[1], 4)}` : "";
    };
    const figures = {
      value: number(y, 6),
      1: number(slope, 6),
      "interval-0": likely(0),
      "interval-1": likely(1),
      "interval-2": likely(2),
      2: second ? number(second.gradient[0], 6) : "–",
      tangent: `y = ${number(slope, 4)} · (x ${x < 0 ? "+" : "−"} ${number(Math.abs(x), 4)}) ${y < 0 ? "−" : "+"} ${number(Math.abs(y), 4)}`,
      where: answer.extrapolated[0]
        ? `extrapolated: outside the data, which ends at ${number(x < this.domain[0] ? this.domain[0] : this.domain[1])}; a guess`
        : `inside the data, from ${number(this.domain[0])} to ${number(this.domain[1])}`,
    };
    const place = byId("curve-figures");
    for (const [name, text] of Object.entries(figures)) {
      place.querySelector(`[data-figure="${name}"]`).textContent = text;
    }
    place.querySelector("[data-order='2']").hidden = !second;
    place.querySelector("[data-figure=where]").classList.toggle("warning", answer.extrapolated[0]);
  }

  /** f′ and f″ of every fit under the plot, over the same x. */
  drawDerivatives(width) {
    const place = byId("curve-derivatives");
    const orders = this.orders().filter((order) => this.fits.every((fit) => fit.derivatives[order]));
    place.hidden = !orders.length;
    place.replaceChildren(...orders.map((order) => {
      const inside = this.fits.flatMap((fit) => fit.derivatives[order].filter((_, i) => !fit.extrapolated[i]));
      const frame = new Frame(width, 190, this.view, range(inside, 0.12));
      const id = `curve-clip-${order}`;
      const here = this.answers[order];
      return svg("svg", { viewBox: `0 0 ${width} 190`, role: "img", "aria-label": `${PRIMES[order]} of every fit` },
        frame.clip(id), frame.shade(this.domain, { class: "domain" }), frame.axes(),
        svg("g", { "clip-path": `url(#${id})` },
          ...this.band(frame, order),
          ...this.fits.flatMap((fit, i) => frame.line(this.xs, fit.derivatives[order], fit.extrapolated, `fit fit-${i % 4}`)),
          ...(here ? [svg("circle", { cx: frame.px(here.x[0]), cy: frame.py(here.gradient[0]), r: 5, class: "handle" })] : [])),
        svg("text", { x: frame.left + 8, y: frame.top + 16, class: "slope" }, PRIMES[order]));
    }));
  }

  showEquations() {
    const place = byId("curve-equation");
    for (const fit of this.fits.filter((fit) => fit.details.coefficients)) {
      const { coefficients } = fit.details;
      const rows = coefficients.map((value, i) =>
        html("tr", {}, html("th", { scope: "row" }, `w${coefficients.length - 1 - i}`), html("td", {}, String(value))));
      place.append(
        html("p", { class: "equation" }, html("strong", {}, `${fit.model}: `), equation(coefficients)),
        html("details", {}, html("summary", {}, "Coefficients in full"),
          html("table", {}, html("caption", {}, `Coefficients of ${fit.model}`), html("tbody", {}, rows))),
      );
    }
  }
}
