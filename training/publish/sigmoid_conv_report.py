"""report.md of the sigmoid convolution: the derivation, step by step, with numbers put in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.manifest import SigmoidConvManifest
from training.publish import report

Array = NDArray[np.float64]

# The sample that the report works through.
EXAMPLE: dict[str, Array] = {
    "x": np.arange(1, 17).reshape(4, 4) / 10,
    "kernel": np.array([[0.1, 0.0, -0.1], [0.2, 0.1, 0.0], [0.0, -0.2, 0.1]]),
    "weights": np.array([0.5, -0.5, 0.25, 0.75]),
    "label": np.array(1.0),
}


def draw(path: Path, results: Mapping[str, Array]) -> None:
    """Heat maps of the gradients by kernel, weights and input of the worked example."""
    panels = (
        ("∂L/∂k", results["kernel_gradient"]),
        ("∂L/∂v (as 2×2)", results["weights_gradient"].reshape(2, 2)),
        ("∂L/∂x", results["input_gradient"]),
    )
    with report.figure(path, columns=3, size=(9.6, 3.5)) as axes:
        for panel, (title, values) in zip(axes, panels, strict=True):
            limit = float(np.abs(values).max()) or 1.0
            panel.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
            panel.set(title=title, xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set_visible(False)
            for row, column in np.ndindex(values.shape):
                value = values[row, column]
                panel.text(
                    column,
                    row,
                    f"{value:.4f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if abs(value) > 0.6 * limit else "#222222",
                )


def text(
    manifest: SigmoidConvManifest, results: Mapping[str, Array], checks: Mapping[str, float]
) -> str:
    """The whole of report.md. ``results`` are the outputs for ``EXAMPLE``."""
    return report.document(
        "# sigmoid-conv: ∂L/∂w10, derived",
        "One 3×3 filter slides over a 4×4 input, a sigmoid follows, and a linear neuron weighs the "
        "four results. The figure that said which weight is w10 was not supplied, so both readings "
        "are derived here, and `/w10-gradient` answers both.",
        _network(),
        _chain_rule(),
        _readings(),
        _example(results),
        _checked(checks),
        report.parameters_section(manifest.parameters),
        report.functions_section(manifest.functions),
        report.provenance_section(manifest.data, manifest.training),
    )


def _network() -> str:
    return report.document(
        "## The network",
        "Rows and columns count from 0. x is the 4×4 input, k the 3×3 kernel, v the four weights "
        "of the neuron, y the label; p and q are 0 or 1, i and j are 0, 1 or 2.",
        r"- preactivation: $z_{pq} = \sum_{i,j} k_{ij}\, x_{p+i,\,q+j}$"
        "\n"
        r"- activation: $a_{pq} = \sigma(z_{pq}) = 1 / (1 + e^{-z_{pq}})$"
        "\n"
        r"- prediction: $\hat y = \sum_{p,q} v_{2p+q}\, a_{pq}$, "
        r"that is $v_0 a_{00} + v_1 a_{01} + v_2 a_{10} + v_3 a_{11}$"
        "\n"
        r"- loss: $L = (\hat y - y)^2$, for one sample, without ½",
        'The "convolution" is what deep learning calls one: cross-correlation, the kernel not '
        "flipped; no padding, stride 1. Neither it nor the neuron has a bias, and the neuron has "
        "no activation of its own.",
    )


def _chain_rule() -> str:
    return report.document(
        "## The chain rule, backwards from the loss",
        "The loss by the prediction:",
        r"$$\frac{\partial L}{\partial \hat y} = 2(\hat y - y)$$",
        r"The prediction is linear in the weights, $\partial \hat y / \partial v_{2p+q} = a_{pq}$:",
        r"$$\frac{\partial L}{\partial v_{2p+q}} = 2(\hat y - y)\, a_{pq}$$",
        r"It is as linear in the activations, $\partial \hat y / \partial a_{pq} = v_{2p+q}$:",
        r"$$\frac{\partial L}{\partial a_{pq}} = 2(\hat y - y)\, v_{2p+q}$$",
        r"The sigmoid: $\sigma'(z) = e^{-z} / (1 + e^{-z})^2 = \sigma(z)(1 - \sigma(z))$, hence",
        r"$$\frac{\partial L}{\partial z_{pq}} = 2(\hat y - y)\, v_{2p+q}\, "
        r"a_{pq}(1 - a_{pq})$$",
        r"The kernel: $\partial z_{pq} / \partial k_{ij} = x_{p+i,\,q+j}$. The same $k_{ij}$ "
        "serves all four positions, and its effects add up:",
        r"$$\frac{\partial L}{\partial k_{ij}} = "
        r"\sum_{p,q} \frac{\partial L}{\partial z_{pq}}\, x_{p+i,\,q+j}$$",
        r"The input, likewise: $x_{rc}$ reaches $z_{pq}$ through $k_{r-p,\,c-q}$, if it exists:",
        r"$$\frac{\partial L}{\partial x_{rc}} = "
        r"\sum_{p,q} \frac{\partial L}{\partial z_{pq}}\, k_{r-p,\,c-q}$$",
    )


def _readings() -> str:
    factor = r"\frac{\partial L}{\partial w_{10}} = 2(\hat y - y)"
    return report.document(
        "## The two readings of w10",
        r"**`matrix`**: $w_{ij}$ is the kernel's row i, column j, so that w10 is $k_{10}$. "
        r"$\partial L / \partial k_{ij}$ with i = 1, j = 0:",
        rf"$${factor}\sum_{{p,q}} v_{{2p+q}}\, a_{{pq}}(1 - a_{{pq}})\, x_{{p+1,\,q}}$$",
        "**`sequential`**: w1 … w9 are the kernel row by row, w10 … w13 the neuron's weights, so "
        r"that w10 is $v_0$. $\partial L / \partial v_{2p+q}$ with p = q = 0:",
        rf"$${factor}\, a_{{00}}$$",
    )


def _example(results: Mapping[str, Array]) -> str:
    x, weights, label = EXAMPLE["x"], EXAMPLE["weights"], float(EXAMPLE["label"])
    z, a = results["preactivation"], results["activation"]
    prediction = float(results["prediction"])
    by_prediction = float(results["prediction_gradient"])
    by_z = results["preactivation_gradient"]
    products = " + ".join(f"({by_z[p, q]:.6f})·{x[p + 1, q]:g}" for p in range(2) for q in range(2))
    return report.document(
        "## With numbers",
        f"$x = {_matrix(x)}$, $k = {_matrix(EXAMPLE['kernel'])}$, "
        f"$v = {_matrix(weights[np.newaxis])}$, $y = {label:g}$",
        report.table(
            ("p, q", "z", "a", "∂L/∂a", "∂L/∂z", "∂L/∂v"),
            [
                (
                    f"{p}, {q}",
                    f"{z[p, q]:.6f}",
                    f"{a[p, q]:.6f}",
                    f"{results['activation_gradient'][p, q]:.6f}",
                    f"{by_z[p, q]:.6f}",
                    f"{results['weights_gradient'][2 * p + q]:.6f}",
                )
                for p in range(2)
                for q in range(2)
            ],
        ),
        rf"$\hat y = {prediction:.6f}$, $L = {float(results['loss']):.6f}$, "
        rf"$\partial L / \partial \hat y = 2({prediction:.6f} - {label:g}) = {by_prediction:.6f}$",
        r"- `matrix`: $\partial L / \partial w_{10} =$ "
        f"{products} = **{results['kernel_gradient'][1, 0]:.6f}**\n"
        r"- `sequential`: $\partial L / \partial w_{10} =$ "
        f"({by_prediction:.6f})·{a[0, 0]:.6f} = "
        f"**{results['weights_gradient'][0]:.6f}**",
        "![Gradients of the example](gradients.png)",
    )


def _checked(checks: Mapping[str, float]) -> str:
    return report.document(
        "## Checked three ways",
        "`loss_gradient` as exported, run by ONNX Runtime on random samples, against each of:",
        report.table(
            ("by", "largest difference"),
            [(means, f"{difference:.1e}") for means, difference in checks.items()],
        ),
        "The closed form is the formulas above in NumPy; autograd is `backward` through PyTorch's "
        "Conv2d, Sigmoid and Linear; central differences use values of the exported loss alone.",
    )


def _matrix(values: Array) -> str:
    """As LaTeX."""
    rows = r" \\ ".join(" & ".join(f"{value:g}" for value in row) for row in values)
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"
