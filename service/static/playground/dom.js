// Small helpers to build elements and write numbers. Text is always set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const MATHML = "http://www.w3.org/1998/Math/MathML";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat());
  return node;
}

/** An HTML element. */
export const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const mathml = (tag, attributes, ...children) => fill(document.createElementNS(MATHML, tag), attributes, children);

// A word or letter, a number, or a sign; with what stands below or above it in braces.
const FORMULA = /(?<name>loss|\p{L}\u0302?)|(?<digits>\d+)|(?<sign>[^\s_^{}])|[_^]\{(?<index>[^}]*)\}/gu;

/** A formula as MathML, of text such as ``z_{ij} = ∑_{r,c} x_{i+r,j+c} k_{rc}``. */
export function formula(text) {
  const parts = (source) => {
    const found = [];
    for (const { groups: { name, digits, sign, index }, 0: written } of source.matchAll(FORMULA)) {
      if (index !== undefined) found.push(mathml(written[0] === "_" ? "msub" : "msup", {}, found.pop(), mathml("mrow", {}, ...parts(index))));
      else found.push(name ? mathml("mi", {}, name) : digits ? mathml("mn", {}, digits) : mathml("mo", { stretchy: "false" }, sign));
    }
    return found;
  };
  return mathml("math", {}, mathml("mrow", {}, ...parts(text)));
}

export const byId = (id) => document.getElementById(id);

/** A number for people: ``digits`` significant ones, and a real minus sign. */
export function number(value, digits = 5) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1e7 || size < 1e-4 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

/** The same, in brackets where it is negative, to stand in a product or a sum. */
export const term = (value, digits = 4) =>
  value < 0 ? `(${number(value, digits)})` : number(value, digits);

/** What stands before a number that is shown with ``digits``: ≈ where that rounds it. */
export function equals(value, digits = 4) {
  return Number(number(value, digits).replaceAll("−", "-")) === value ? "=" : "≈";
}

/** Digits that ``value`` needs so that its difference from ``other`` is seen: 1 − 1 isn't 3e-7. */
export function digitsBeside(value, other, least = 4) {
  const size = Math.max(Math.abs(value), Math.abs(other));
  const apart = Math.abs(value - other);
  if (apart === 0) return least;
  return Math.min(17, Math.max(least, least + Math.floor(Math.log10(size / apart))));
}

/** A whole number with its thousands apart. */
export const count = (value) => value.toLocaleString("en");

/**
 * What a person typed as a number; anything else as it is, for the API to say what is wrong.
 * A comma is a decimal mark, but not where it may part thousands: 0,5 is a half, 1,000 is unclear.
 */
export function typed(text) {
  const plain = text.trim().replace("−", "-").replace(/^([+-]?(?:\d*,\d{1,2}|\d*,\d{4,}|0,\d+))$/, (half) => half.replace(",", "."));
  const value = Number(plain);
  return plain !== "" && Number.isFinite(value) ? value : text;
}

/** Why a panel is empty: ``what`` isn't among the models; it says which are. */
export function lacking(what, models) {
  const serving = models.filter(({ state }) => state === "serving").map(({ model, kind }) => `${model} (${kind})`);
  return new Error(`No ${what} is serving here.${serving.length ? ` These are: ${serving.join(", ")}.` : ""}`);
}

/** Say in words what went wrong, in the panel's own place; without an error, take it away. */
export function tell(panel, error = null) {
  const place = byId(`${panel}-problem`);
  place.hidden = error === null;
  place.replaceChildren();
  if (error === null) return;
  place.append(html("p", {}, error.message));
  const items = (error.errors ?? []).map((item) => {
    const where = item.pointer?.replace("#/", "").replaceAll("/", ", ") ?? item.parameter;
    return where ? `${where}: ${item.detail}` : item.detail;
  }).filter((words) => words !== error.message);
  if (items.length) place.append(html("ul", {}, items.map((words) => html("li", {}, words))));
}

/** Give ``take`` each file that is chosen with ``input`` or dropped on ``place``. */
export function files(place, input, take) {
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragenter", "dragover"]) {
    place.addEventListener(kind, (event) => {
      event.preventDefault();
      place.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) place.addEventListener(kind, () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (!file && event.target.matches("textarea")) return; // text goes into the field
    event.preventDefault();
    if (file) take(file);
  });
}
