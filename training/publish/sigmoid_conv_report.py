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
        "- preactivation: z_pq = Σ_ij k_ij · x_(p+i)(q+j)\n"
        "- activation: a_pq = σ(z_pq) = 1 / (1 + e^(−z_pq))\n"
        "- prediction: ŷ = Σ_pq v_(2p+q) · a_pq, "
        "that is v_0·a_00 + v_1·a_01 + v_2·a_10 + v_3·a_11\n"
        "- loss: L = (ŷ − y)², for one sample, without ½",
        'The "convolution" is what deep learning calls one: cross-correlation, the kernel not '
        "flipped; no padding, stride 1. Neither it nor the neuron has a bias, and the neuron has "
        "no activation of its own.",
    )


def _chain_rule() -> str:
    return report.document(
        "## The chain rule, backwards from the loss",
        "1. The loss by the prediction: **∂L/∂ŷ = 2(ŷ − y)**\n"
        "2. The prediction is linear in the weights, ∂ŷ/∂v_(2p+q) = a_pq, hence "
        "**∂L/∂v_(2p+q) = 2(ŷ − y) · a_pq**\n"
        "3. It is as linear in the activations, ∂ŷ/∂a_pq = v_(2p+q), hence "
        "**∂L/∂a_pq = 2(ŷ − y) · v_(2p+q)**\n"
        "4. The sigmoid: σ′(z) = e^(−z) / (1 + e^(−z))² = σ(z)·(1 − σ(z)), hence "
        "**∂L/∂z_pq = 2(ŷ − y) · v_(2p+q) · a_pq · (1 − a_pq)**\n"
        "5. The kernel: ∂z_pq/∂k_ij = x_(p+i)(q+j). The same k_ij serves all four positions, and "
        "its effects add up: **∂L/∂k_ij = Σ_pq ∂L/∂z_pq · x_(p+i)(q+j)**\n"
        "6. The input, likewise: x_rc reaches z_pq through k_(r−p)(c−q) where that exists: "
        "**∂L/∂x_rc = Σ_pq ∂L/∂z_pq · k_(r−p)(c−q)**",
    )


def _readings() -> str:
    return report.document(
        "## The two readings of w10",
        "**`matrix`**: w_ij is the kernel's row i, column j, so that w10 is k_10. Step 5 with "
        "i = 1, j = 0:",
        "∂L/∂w10 = 2(ŷ − y) · [ v_0·a_00(1 − a_00)·x_10 + v_1·a_01(1 − a_01)·x_11 "
        "+ v_2·a_10(1 − a_10)·x_20 + v_3·a_11(1 − a_11)·x_21 ]",
        "**`sequential`**: w1 … w9 are the kernel row by row, w10 … w13 the neuron's weights, so "
        "that w10 is v_0. Step 2 with p = q = 0:",
        "∂L/∂w10 = 2(ŷ − y) · a_00",
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
        _matrix("x", x) + "\n" + _matrix("k", EXAMPLE["kernel"]),
        f"v = ({', '.join(f'{value:g}' for value in weights)}), y = {label:g}",
        report.table(
            ("p, q", "z_pq", "a_pq", "∂L/∂a_pq", "∂L/∂z_pq", "∂L/∂v_(2p+q)"),
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
        f"ŷ = {prediction:.6f}, L = {float(results['loss']):.6f}, "
        f"∂L/∂ŷ = 2·({prediction:.6f} − {label:g}) = {by_prediction:.6f}",
        f"- `matrix`: ∂L/∂w10 = {products} = **{results['kernel_gradient'][1, 0]:.6f}**\n"
        f"- `sequential`: ∂L/∂w10 = ({by_prediction:.6f})·{a[0, 0]:.6f} = "
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


def _matrix(name: str, values: Array) -> str:
    rows = [[f"{value:g}" for value in row] for row in values]
    headers = [name, *[""] * (len(rows[0]) - 1)]
    return report.table(headers, rows)
