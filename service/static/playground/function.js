// The function panel: any model with a value, a slice through it with its tangent, its Jacobian.

import { get, latest, postJson, send } from "./api.js";
import { byId, html, lacking, number, svg, tell, typed } from "./dom.js";
import { Frame, range } from "./plot.js";
import { Record } from "./request.js";

const SAMPLES = 121; // points of a slice
const SINGLE = 31; // the same along an input without rows, each of which is a request
const MOST = 64; // numbers of a row that a person may want to type
const SHOWN = 12; // rows and columns of a Jacobian, and numbers of an output

export async function start(models) {
  const panel = new FunctionPanel();
  try {
    const names = models.filter((model) => model.functions.includes("value")).map((model) => model.model);
    if (!names.length) throw lacking("model with a value", models);
    await panel.load(names);
  } catch (error) {
    tell("function", error);
  }
}

const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);
const hasRows = (tensor) => tensor.shape[0] === "n";
const rowShape = (tensor) => (hasRows(tensor) ? tensor.shape.slice(1) : tensor.shape);
const isFloat = (tensor) => tensor.dtype.startsWith("float");

/** The elements of an array of ``shape`` by name: x, or x[0], or x[0, 1]. */
function elements(name, shape) {
  return Array.from({ length: sizeOf(shape) }, (_, flat) => {
    const index = [];
    for (let axis = shape.length - 1, rest = flat; axis >= 0; axis -= 1) {
      index.unshift(rest % shape[axis]);
      rest = Math.floor(rest / shape[axis]);
    }
    return index.length ? `${name}[${index.join(", ")}]` : name;
  });
}

/** A flat list as nested lists of ``shape``. */
function nested(flat, shape) {
  if (!shape.length) return flat[0];
  const step = flat.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => nested(flat.slice(i * step, (i + 1) * step), shape.slice(1)));
}

const numbers = (text) => text.split(/[\s,;[\]]+/).filter((part) => part !== "").map(typed);

class FunctionPanel {
  constructor() {
    this.record = new Record("function");
    this.select = byId("function-model");
    this.along = byId("function-along");
    this.output = byId("function-output");
    this.ask = latest(() => this.update());
    this.drawing = svg("svg", { role: "img", "aria-label": "A slice through the function, with its tangent" });
    byId("function-plot").append(this.drawing);
    byId("function-form").addEventListener("submit", (event) => event.preventDefault());
    this.select.addEventListener("change", () => this.choose());
    this.along.addEventListener("change", () => this.ask());
    this.output.addEventListener("change", () => this.ask());
  }

  async load(names) {
    const all = await Promise.all(names.map(async (name) => (await send(get(`models/${name}`))).document));
    this.models = Object.fromEntries(all.filter((details) => {
      const { inputs, outputs } = details.functions.value;
      const tensors = [...inputs, ...outputs];
      const fixed = tensors.every((tensor) => rowShape(tensor).every((size) => typeof size === "number"));
      return fixed && inputs.some(isFloat) && inputs.every((input) => sizeOf(rowShape(input)) <= MOST);
    }).map((details) => [details.model, details]));
    if (!Object.keys(this.models).length) throw new Error("No model with a value of a few numbers is serving yet.");
    // Models of one's own come first: the curves have a panel already.
    const order = Object.values(this.models).sort((a, b) => (b.kind === "function") - (a.kind === "function"));
    this.select.replaceChildren(...order.map(({ model }) => html("option", {}, model)));
    new ResizeObserver(() => this.draw()).observe(byId("function-plot"));
    await this.choose();
  }

  async choose() {
    this.details = this.models[this.select.value];
    const { inputs, outputs } = this.details.functions.value;
    this.inputs = inputs;
    this.outputs = outputs;
    this.fields = inputs.map((input) => {
      const example = [this.details.example[input.name] ?? []].flat(Infinity);
      const middle = isFloat(input) ? 0.5 : 1;
      const values = example.length ? example : Array(sizeOf(rowShape(input))).fill(middle);
      const label = `${input.name} ${rowShape(input).length ? `(${rowShape(input).join("×")})` : ""} =`;
      const field = html("input", { inputmode: "text", autocomplete: "off", "data-input": input.name,
        value: values.map((value) => Number(Number(value).toPrecision(6))).join(", "), oninput: () => this.ask() });
      return { field, label: html("label", {}, label, " ", field) };
    });
    byId("function-inputs").replaceChildren(...this.fields.map(({ label }) => label));
    const options = (tensors) => tensors.flatMap((tensor, which) => elements(tensor.name, rowShape(tensor)).map((name, element) =>
      html("option", { value: `${which}/${element}` }, name)));
    this.along.replaceChildren(...options(inputs).filter((option) => isFloat(inputs[Number(option.value.split("/")[0])])));
    this.output.replaceChildren(...options(outputs));
    await this.ask();
  }

  /** The numbers in the fields, flat, by input; null where they are not as many as they should be. */
  read() {
    let good = true;
    const found = this.fields.map(({ field }, i) => {
      const values = numbers(field.value);
      const wrong = values.length !== sizeOf(rowShape(this.inputs[i])) || values.some((value) => typeof value !== "number");
      field.toggleAttribute("aria-invalid", wrong);
      if (wrong) field.setAttribute("aria-invalid", "true");
      good = good && !wrong;
      return values;
    });
    if (good) return found;
    const wanted = this.inputs.map((input) => `${sizeOf(rowShape(input))} for ${input.name}`).join(", ");
    tell("function", new Error(`There should be as many numbers as the function takes: ${wanted}. Commas and spaces part them; decimals have a point.`));
    return null;
  }

  /** The output with the Jacobian of ``y`` by ``x``, and what it needs besides; null if there is none. */
  jacobian(y, x) {
    const outputs = new Set(Object.values(this.details.functions).flatMap((f) => f.outputs.map((tensor) => tensor.name)));
    for (const name of [`jacobian_${y.name}_${x.name}`, `gradient_${y.name}_${x.name}`]) {
      if (outputs.has(name)) return { name, extra: {} };
    }
    if (this.details.kind === "curve") return { name: "gradient", extra: {} };
    const { vjp } = this.details.functions;
    if (!vjp || !outputs.has(`vjp_${x.name}`)) return null;
    // A cotangent for each element of the output, zeros for the other outputs.
    const count = sizeOf(rowShape(y));
    const extra = {};
    for (const tensor of vjp.inputs.filter((input) => input.name.startsWith("cotangent_"))) {
      const shape = tensor.shape.filter((size) => typeof size === "number");
      const unit = (k) => nested(Array.from({ length: sizeOf(shape) }, (_, i) => Number(tensor.name === `cotangent_${y.name}` && i === k)), shape);
      const rows = Array.from({ length: count }, (_, k) => unit(k));
      extra[tensor.name] = tensor.shape[0] === "n" ? [rows] : rows;
    }
    return { name: `vjp_${x.name}`, extra };
  }

  async update() {
    const values = this.read();
    if (!values) return;
    const [which, element] = this.along.value.split("/").map(Number);
    const [whichOut, elementOut] = this.output.value.split("/").map(Number);
    const x = this.inputs[which];
    const y = this.outputs[whichOut];
    const arrays = (rows) => Object.fromEntries(this.inputs.map((input, i) => {
      const one = nested(values[i], rowShape(input));
      return [input.name, hasRows(input) ? Array(rows).fill(one) : one];
    }));
    const jacobian = isFloat(y) ? this.jacobian(y, x) : null;
    const { model } = this.details;
    const outputs = this.outputs.map((output) => output.name);
    const request = postJson("evaluate", { model, inputs: { ...arrays(1), ...jacobian?.extra }, outputs: [...outputs, ...(jacobian ? [jacobian.name] : [])] });
    request.umbridge = this.umbridge(values, which, whichOut);
    this.record.set([request]);
    const at = values[which][element];
    const [low, high] = this.window(x, at);
    const samples = hasRows(x) ? SAMPLES : SINGLE;
    const xs = Array.from({ length: samples }, (_, i) => low + ((high - low) * i) / (samples - 1));
    const points = xs.map((value) => nested(values[which].with(element, value), rowShape(x)));
    const flat = (array) => [array].flat(Infinity);
    const evaluate = async (inputs) => (await send(postJson("evaluate", { model, inputs, outputs: [y.name] }))).document.outputs[y.name];
    const along = hasRows(x)
      ? evaluate({ ...arrays(samples), [x.name]: points })
      : Promise.all(points.map((point) => evaluate({ ...arrays(1), [x.name]: point })));
    try {
      // A function may have no value somewhere along the slice, and have one here.
      const [here, slice] = await Promise.all([send(request), along.catch((error) => error)]);
      const found = here.document.outputs;
      const ys = slice instanceof Error ? null : slice.map((row) => flat(row)[elementOut]);
      const matrix = jacobian ? nested(flat(found[jacobian.name]), [sizeOf(rowShape(y)), sizeOf(rowShape(x))]) : null;
      this.slice = ys && { xs, ys, at, height: flat(found[y.name])[elementOut], slope: matrix?.[elementOut][element],
        names: [this.along.selectedOptions[0].textContent, this.output.selectedOptions[0].textContent] };
      this.show(found, matrix, x, y);
      tell("function", ys ? null : new Error(`The slice can’t be drawn: ${slice.message}`));
    } catch (error) {
      tell("function", error);
    }
  }

  /** The part of the axis that a slice shows: where the examples were, or around the point. */
  window(input, at) {
    const known = this.details.ranges[input.name] ?? this.details.domain;
    const [low, high] = known ?? [at - Math.max(1, Math.abs(at)), at + Math.max(1, Math.abs(at))];
    const pad = (high - low || 1) * 0.05;
    return [Math.min(low, at) - pad, Math.max(high, at) + pad];
  }

  umbridge(values, which, whichOut) {
    const sens = Array(sizeOf(rowShape(this.outputs[whichOut]))).fill(0).with(Number(this.output.value.split("/")[1]), 1);
    const calls = [`print(model.gradient(${whichOut}, ${which}, at, ${JSON.stringify(sens)}))`];
    return { name: this.details.model, vectors: values, calls };
  }

  show(found, matrix, x, y) {
    byId("function-outputs").replaceChildren(...this.outputs.map(({ name }) => {
      const flat = [found[name]].flat(Infinity);
      const text = flat.slice(0, SHOWN).map((value) => number(value, 6)).join(", ") + (flat.length > SHOWN ? ", …" : "");
      return html("div", { class: flat.length > 2 ? "wide" : false }, html("dt", {}, name), html("dd", { "data-output": name }, text));
    }));
    byId("function-jacobian").replaceChildren(...(matrix ? [this.table(matrix, x, y)] : [html("p", {}, "This model was published without its Jacobian.")]));
    this.draw();
  }

  /** The Jacobian, its cells coloured by sign and size. */
  table(matrix, x, y) {
    const rows = elements(y.name, rowShape(y)).slice(0, SHOWN);
    const columns = elements(x.name, rowShape(x)).slice(0, SHOWN);
    const peak = Math.max(...matrix.flat().map(Math.abs)) || 1;
    const cut = matrix.length > SHOWN || matrix[0].length > SHOWN ? `, its first ${rows.length}×${columns.length}` : "";
    const head = html("tr", {}, html("td", {}), columns.map((name) => html("th", { scope: "col" }, name)));
    const body = rows.map((name, i) => html("tr", {}, html("th", { scope: "row" }, name), columns.map((_, j) => {
      const value = matrix[i][j];
      const cell = html("td", { class: value < 0 ? "negative" : "positive", "data-jacobian": `${i}/${j}` }, number(value, 4));
      cell.style.setProperty("--size", `${Math.round((Math.abs(value) / peak) * 60)}%`);
      return cell;
    })));
    return html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The Jacobian" },
      html("table", { class: "heat" }, html("caption", {}, `Jacobian ∂${y.name}/∂${x.name}${cut}`), html("thead", {}, head), html("tbody", {}, body)));
  }

  draw() {
    const width = byId("function-plot").clientWidth;
    this.drawing.toggleAttribute("hidden", !this.slice);
    if (!this.slice || !width) return;
    const { xs, ys, at, height, slope, names } = this.slice;
    const high = width < 500 ? 240 : 320;
    const frame = new Frame(width, high, [xs[0], xs[xs.length - 1]], range([...ys, height], 0.15));
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${high}`);
    const parts = [frame.clip("function-clip"), frame.axes(),
      svg("g", { "clip-path": "url(#function-clip)" }, frame.line(xs, ys, xs.map(() => false), "fit fit-0"))];
    if (slope !== undefined) {
      const line = (px) => height + slope * (px - at);
      parts.push(svg("line", { class: "tangent", "clip-path": "url(#function-clip)", "data-slope": slope,
        x1: frame.px(xs[0]), y1: frame.py(line(xs[0])), x2: frame.px(xs[xs.length - 1]), y2: frame.py(line(xs[xs.length - 1])) }));
    }
    const text = slope === undefined ? "" : `slope ${number(slope, 4)}`;
    const left = frame.px(at) > width * 0.7;
    parts.push(svg("circle", { class: "handle", r: 6, cx: frame.px(at), cy: frame.py(height) }),
      svg("text", { class: "slope", x: frame.px(at) + (left ? -12 : 12), y: Math.max(26, frame.py(height) - 12), "text-anchor": left ? "end" : "start" }, text),
      svg("text", { class: "note", x: frame.right, y: frame.bottom - 6, "text-anchor": "end" }, names[0]),
      svg("text", { class: "note", x: frame.left + 6, y: frame.top + 10 }, names[1]));
    this.drawing.replaceChildren(...parts);
  }
}
