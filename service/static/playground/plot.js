// A plot in SVG with axes: from numbers to pixels and back.

import { number, svg } from "./dom.js";

const MARGIN = { left: 44, right: 12, top: 12, bottom: 28 };

/** Round numbers that divide [low, high] into about ``wanted`` parts. */
export function ticks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** ``[low, high]`` of values, widened by ``share`` of its length at both ends. */
export function range(values, share) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const pad = (high - low || 1) * share;
  return [low - pad, high + pad];
}

/** The frame of a plot ``width`` × ``height`` pixels over the ranges ``x`` and ``y``. */
export class Frame {
  constructor(width, height, x, y, top = MARGIN.top) {
    Object.assign(this, { width, height, x, y, top });
    this.left = MARGIN.left;
    this.right = width - MARGIN.right;
    this.bottom = height - MARGIN.bottom;
  }

  px(x) {
    return this.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.right - this.left);
  }

  py(y) {
    return this.bottom - ((y - this.y[0]) / (this.y[1] - this.y[0])) * (this.bottom - this.top);
  }

  /** The x at a horizontal pixel. */
  at(pixel) {
    return this.x[0] + ((pixel - this.left) / (this.right - this.left)) * (this.x[1] - this.x[0]);
  }

  /** A clip path by which nothing is drawn outside the frame. */
  clip(id) {
    const { left, top } = this;
    const size = { width: this.right - left, height: this.bottom - top };
    return svg("clipPath", { id }, svg("rect", { x: left, y: top, ...size }));
  }

  /** Lines and numbers; ``format`` writes those of the y axis. */
  axes(format = number) {
    const group = svg("g", { class: "axes" });
    for (const x of ticks(...this.x, this.width > 500 ? 8 : 5)) {
      const at = this.px(x);
      group.append(
        svg("line", { x1: at, x2: at, y1: this.top, y2: this.bottom, class: x === 0 ? "zero" : "tick" }),
        svg("text", { x: at, y: this.bottom + 18, "text-anchor": "middle" }, number(x)),
      );
    }
    for (const y of ticks(...this.y, 5)) {
      const at = this.py(y);
      group.append(
        svg("line", { x1: this.left, x2: this.right, y1: at, y2: at, class: y === 0 ? "zero" : "tick" }),
        svg("text", { x: this.left - 6, y: at + 4, "text-anchor": "end" }, format(y)),
      );
    }
    return group;
  }

  /** The part of the x axis from ``low`` to ``high`` shaded. */
  shade([low, high], attributes) {
    const x = this.px(low);
    return svg("rect", { x, width: this.px(high) - x, y: this.top, height: this.bottom - this.top, ...attributes });
  }

  /** A line through the points; the parts where ``dashed`` is true as a second path. */
  line(xs, ys, dashed, className) {
    const parts = { solid: "", dashed: "" };
    for (let i = 1; i < xs.length; i += 1) {
      const kind = dashed[i] || dashed[i - 1] ? "dashed" : "solid";
      const before = i > 1 && (dashed[i - 1] || dashed[i - 2]) === (kind === "dashed");
      if (!before) parts[kind] += `M${this.point(xs[i - 1], ys[i - 1])}`;
      parts[kind] += `L${this.point(xs[i], ys[i])}`;
    }
    return Object.entries(parts).map(([kind, d]) => svg("path", { d, class: `${className} ${kind}` }));
  }

  /** The area between the two values of each interval. */
  band(xs, intervals, className) {
    const points = (side) => xs.map((x, i) => this.point(x, intervals[i][side]));
    return svg("path", { d: `M${[...points(0), ...points(1).reverse()].join("L")}Z`, class: className });
  }

  point(x, y) {
    // Far outside the frame, as fits are where they extrapolate, a number would only be long.
    const py = Math.max(-1e4, Math.min(1e4, this.py(y)));
    return `${this.px(x).toFixed(2)} ${py.toFixed(2)}`;
  }
}
