// The chain rule of the w10 panel in words and numbers, all of them from the API's answer.

import { digitsBeside, equals, formula, html, number, term } from "./dom.js";

const CELLS = [[0, 0], [0, 1], [1, 0], [1, 1]];
const short = (value) => number(value, 4);
const result = (value) => `${equals(value)} ${short(value)}`;

/** The list items, from the input to w10. ``asked`` is the request, ``answer`` the API's. */
export function derivation(asked, answer) {
  const { input, kernel, weights, label, naming } = asked;
  const { preactivation: z, activation: a, prediction_gradient: dy, activation_gradient: da, preactivation_gradient: dz } =
    answer.steps;
  const near = digitsBeside(answer.prediction, label);
  const error = `(${number(answer.prediction, near)} − ${term(label, near)})`;
  const each = (line) => CELLS.map(([i, j], n) => line(i, j, n, `${i}${j}`));
  const window = (i, j) => kernel.flatMap((row, r) => row.map((w, c) => `${term(input[i + r][j + c])}·${term(w)}`)).join(" + ");
  const steps = [
    ["Cross-correlate the input with the kernel:", "z_{ij} = ∑_{r,c} x_{i+r,j+c} k_{rc}",
      each((i, j, n, name) => `z${name} = ${window(i, j)} ${result(z[i][j])}`)],
    ["The sigmoid, σ(z) = 1 / (1 + e⁻ᶻ):", "a_{ij} = σ(z_{ij})",
      each((i, j, n, name) => `a${name} = σ(${short(z[i][j])}) ${result(a[i][j])}`)],
    ["The four weights give the prediction:", "ŷ = ∑_{i,j} v_{2i+j} a_{ij}",
      [`ŷ = ${each((i, j, n) => `${term(weights[n])}·${term(a[i][j])}`).join(" + ")} ${result(answer.prediction)}`]],
    ["The loss:", "loss = (ŷ − y)^{2}",
      [`loss = ${error}² ${result(answer.loss)}`]],
    ["Back, by the prediction:", "∂loss/∂ŷ = 2(ŷ − y)",
      [`∂loss/∂ŷ = 2 · ${error} ${result(dy)}`]],
  ];
  if (naming === "sequential") {
    steps.push(["w10 is v0, the weight of a00:", "∂loss/∂v_{0} = ∂loss/∂ŷ · a_{00}",
      [`∂loss/∂w10 = ∂loss/∂ŷ · a00 = ${term(dy)} · ${term(a[0][0])} ${result(answer.w10.gradient)}`]]);
  } else {
    steps.push(
      ["Through the weights:", "∂loss/∂a_{ij} = ∂loss/∂ŷ · v_{2i+j}",
        each((i, j, n, name) => `∂loss/∂a${name} = ${term(dy)} · ${term(weights[n])} ${result(da[i][j])}`)],
      ["Through the sigmoid, whose derivative is a (1 − a):", "∂loss/∂z_{ij} = ∂loss/∂a_{ij} · a_{ij}(1 − a_{ij})",
        each((i, j, n, name) => `∂loss/∂z${name} = ${term(da[i][j])} · ${term(a[i][j])} · (1 − ${term(a[i][j], digitsBeside(a[i][j], 1))}) ${result(dz[i][j])}`)],
      ["w10 is the kernel’s row 1, column 0, and takes part in all four z:", "∂loss/∂k_{10} = ∑_{i,j} ∂loss/∂z_{ij} · x_{i+1,j}",
        [`∂loss/∂w10 = ${each((i, j) => `${term(dz[i][j])}·${term(input[i + 1][j])}`).join(" + ")} ${result(answer.w10.gradient)}`]],
    );
  }
  return steps.map(([words, rule, lines]) =>
    html("li", {}, html("p", {}, `${words} `, formula(rule)), html("div", { class: "formula" }, lines.map((line) => html("p", {}, line)))));
}
