"""Artifacts small enough to know by heart, for tests of the service: no training, no PyTorch.

The curve is f(x) = x³ − 2x. The classifier compares the mean red, green and blue of an image. The
sigmoid convolution has the names and shapes of the real one, with arithmetic simple enough to
check by eye.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from contract.manifest import (
    Agreement,
    ClassifierManifest,
    CurveManifest,
    Data,
    Function,
    FunctionManifest,
    Graph,
    Layer,
    Parameters,
    SigmoidConvManifest,
    Tensor,
    Training,
)
from contract.store import Artifact, Draft

CLASSES = ("red", "green", "blue")
ELEMENT = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
}
REPORT = """# A report

| x | y |
|---|---|
| 1 | -1 |

![The fit](fit.png) ![Elsewhere](https://elsewhere.example/x.png)

<script>alert("no")</script>
"""


def graph(
    nodes: list[onnx.NodeProto],
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    **constants: np.ndarray,
) -> bytes:
    """A serialised ONNX model."""

    def info(tensor: Tensor) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor.name, ELEMENT[tensor.dtype], list(tensor.shape))

    body = helper.make_graph(
        nodes,
        "tiny",
        [info(tensor) for tensor in inputs],
        [info(tensor) for tensor in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return model.SerializeToString()


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """An operator, its inputs written with spaces between them."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def tensor(name: str, dtype: str, *shape: int | str) -> Tensor:
    """A tensor of the manifest."""
    return Tensor(name=name, dtype=dtype, shape=shape)


def function(
    name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], **options: Any
) -> Function:
    """A function whose graph is ``<name>.onnx`` and agrees to 1e-6."""
    exact = Agreement(maximum_absolute_error=0, absolute_tolerance=1e-6, relative_tolerance=1e-9)
    precision = options.pop("precision", "fp64")
    reference = Graph(file=f"{name}.onnx", precision=precision, agreement=exact)
    return Function(inputs=inputs, outputs=outputs, graph=reference, **options)


def publish_curve(
    root: Path,
    model: str = "curve-mlp",
    *,
    offset: float = 0.0,
    uncertain: bool = False,
    **changes: Any,
) -> Artifact:
    """f(x) = x³ − 2x + offset with its three derivatives. ``changes`` replace files by bytes.

    ``uncertain``: with the standard deviations x² and 6 of f and f′, and 5 degrees of freedom.
    """
    x = tensor("x", "float64", "n")
    powers = {
        "value": ([1.0, -2.0, offset], "y"),
        "gradient": ([3.0, -2.0], "gradient"),
        "gradient2": ([6.0, 0.0], "gradient2"),
        "gradient3": ([6.0], "gradient3"),
    }
    formulas = {
        "value": lambda v: v**3 - 2 * v + offset,
        "gradient": lambda v: 3 * v**2 - 2,
        "gradient2": lambda v: 6 * v,
        "gradient3": lambda v: np.full_like(v, 6.0),
        "value_sd": lambda v: v * v,
        "gradient_sd": lambda v: np.full_like(v, 6.0),
    }
    if uncertain:
        powers |= {"value_sd": ([1.0, 0.0, 0.0], "value_sd"), "gradient_sd": ([6.0], "gradient_sd")}
    operators = {
        "value": [
            node("Mul", "x x", "s"),
            node("Sub", "s two", "d"),
            node("Mul", "d x", "p"),
            node("Add", "p offset", "y"),
        ],
        "gradient": [
            node("Mul", "x x", "s"),
            node("Mul", "s three", "t"),
            node("Sub", "t two", "gradient"),
        ],
        "gradient2": [node("Mul", "x six", "gradient2")],
        "gradient3": [
            node("Mul", "x zero", "z"),
            node("Add", "z six", "gradient3"),
        ],
        "value_sd": [node("Mul", "x x", "value_sd")],
        "gradient_sd": [node("Mul", "x zero", "z"), node("Add", "z six", "gradient_sd")],
    }
    constants = {
        name: np.float64(value)
        for name, value in {
            "two": 2, "three": 3, "six": 6, "zero": 0, "offset": offset
        }.items()
    }  # fmt: skip
    samples: dict[str, np.ndarray] = {}
    functions = {}
    points = np.linspace(-1, 4, 7)
    files: dict[str, bytes] = {"report.md": REPORT.encode(), "fit.png": png((0, 0, 0))}
    for name, (_, output) in powers.items():
        y = tensor(output, "float64", "n")
        functions[name] = function(name, (x,), (y,))
        used = {i for operator in operators[name] for i in operator.input}
        files[f"{name}.onnx"] = graph(
            operators[name], (x,), (y,), **{k: v for k, v in constants.items() if k in used}
        )
        samples[f"{name}.x"] = points
        samples[f"{name}.{output}"] = formulas[name](points)
    extra = {"domain": (-1.0, 4.0), "coefficients": (1.0, 0.0, -2.0, offset)}
    if uncertain:
        extra["degrees_of_freedom"] = 5.0
    return publish(root, CurveManifest, model, functions, samples, files | changes, extra)


def publish_classifier(
    root: Path,
    model: str = "cifar-improved",
    *,
    int8_agrees: bool | None = None,
    familiar: bool = False,
) -> Artifact:
    """Softmax of the mean red, green and blue over 8; saliency is the brightness, times class + 1.

    ``int8_agrees`` adds a variant that does, or does not, agree; ``familiar`` a second output, the
    mean red over 255.
    """
    image = tensor("image", "uint8", "n", 32, 32, 3)
    wanted = tensor("class", "int64", "n")
    probabilities = tensor("probabilities", "float32", "n", 3)
    saliency = tensor("saliency", "float32", "n", 32, 32)
    outputs = (probabilities, tensor("familiar", "float32", "n"))[: 1 + familiar]

    def classify(scale: float) -> bytes:
        nodes = [
            node("Cast", "image", "f", to=TensorProto.FLOAT),
            node("ReduceMean", "f axes", "m", keepdims=0),
            node("Mul", "m scale", "s"),
            node("Softmax", "s", "probabilities", axis=-1),
        ]
        constants = {"axes": np.array([1, 2]), "scale": np.float32(scale)}
        if familiar:
            nodes += [node("Gather", "m red", "r", axis=1), node("Mul", "r part", "familiar")]
            constants |= {"red": np.array(0), "part": np.float32(1 / 255)}
        return graph(nodes, (image,), outputs, **constants)

    explain = graph(
        [
            node("Cast", "image", "f", to=TensorProto.FLOAT),
            node("ReduceMean", "f axes", "m", keepdims=0),
            node("Cast", "class", "c", to=TensorProto.FLOAT),
            node("Add", "c one", "k"),
            node("Reshape", "k shape", "r"),
            node("Mul", "m r", "saliency"),
        ],
        (image, wanted),
        (saliency,),
        axes=np.array([3]),
        one=np.float32(1),
        shape=np.array([-1, 1, 1]),
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    classes = np.array([0, 1, 2, 0])
    logits = images.mean((1, 2)) / 8
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    samples = {
        "probabilities.image": images,
        "probabilities.probabilities": (exp / exp.sum(-1, keepdims=True)).astype(np.float32),
        "probabilities.familiar": (images[..., 0].mean((1, 2)) / 255).astype(np.float32),
        "saliency.image": images,
        "saliency.class": classes,
        "saliency.saliency": (images.mean(3) * (classes + 1)[:, None, None]).astype(np.float32),
    }
    files = {"probabilities.onnx": classify(1 / 8), "saliency.onnx": explain}
    variants: tuple[Graph, ...] = ()
    if int8_agrees is not None:
        files["probabilities.int8.onnx"] = classify(1 / 8 if int8_agrees else 1.0)
        loose = Agreement(maximum_absolute_error=0, absolute_tolerance=1e-3, relative_tolerance=0)
        variants = (Graph(file="probabilities.int8.onnx", precision="int8", agreement=loose),)
    functions = {
        "probabilities": function(
            "probabilities", (image,), outputs, precision="fp32", variants=variants
        ),
        "saliency": Function(
            inputs=(image, wanted),
            outputs=(saliency,),
            graph=Graph(
                file="saliency.onnx",
                precision="fp32",
                agreement=Agreement(
                    maximum_absolute_error=0, absolute_tolerance=1e-2, relative_tolerance=0
                ),
            ),
        ),
    }
    extra = {"classes": CLASSES}
    return publish(root, ClassifierManifest, model, functions, samples, files, extra)


SIGMOID_CONV_OUTPUTS = {
    # name: (shape after n, the input it copies)
    "prediction": ((), "label"),
    "loss": ((), "label"),
    "preactivation": ((2, 2), "corner"),
    "activation": ((2, 2), "corner"),
    "prediction_gradient": ((), "label"),
    "activation_gradient": ((2, 2), "corner"),
    "preactivation_gradient": ((2, 2), "corner"),
    "kernel_gradient": ((3, 3), "kernel"),
    "weights_gradient": ((4,), "weights"),
    "input_gradient": ((4, 4), "x"),
}


def publish_sigmoid_conv(root: Path) -> Artifact:
    """Every output is a copy of an input of its shape: shows what lands where, not the calculus."""
    inputs = (
        tensor("x", "float64", "n", 4, 4),
        tensor("kernel", "float64", "n", 3, 3),
        tensor("weights", "float64", "n", 4),
        tensor("label", "float64", "n"),
    )
    outputs = tuple(
        tensor(name, "float64", "n", *shape) for name, (shape, _) in SIGMOID_CONV_OUTPUTS.items()
    )
    nodes = [node("Slice", "x starts ends axes", "corner")]
    nodes += [node("Identity", source, name) for name, (_, source) in SIGMOID_CONV_OUTPUTS.items()]
    content = graph(
        nodes,
        inputs,
        outputs,
        starts=np.array([0, 0]),
        ends=np.array([2, 2]),
        axes=np.array([1, 2]),
    )
    random = np.random.default_rng(0)
    given = {t.name: random.normal(size=(5, *t.shape[1:])) for t in inputs}  # type: ignore[arg-type]
    given["corner"] = given["x"][:, :2, :2]
    samples = {f"loss_gradient.{t.name}": given[t.name] for t in inputs}
    for name, (_, source) in SIGMOID_CONV_OUTPUTS.items():
        samples[f"loss_gradient.{name}"] = given[source]
    functions = {"loss_gradient": function("loss_gradient", inputs, outputs)}
    files = {"loss_gradient.onnx": content}
    return publish(root, SigmoidConvManifest, "sigmoid-conv", functions, samples, files, {})


# y_j = ½ xᵀ QUADRATIC_j x: small whole numbers, so that everything can be checked by eye.
QUADRATIC = np.array([[[2, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 1], [0, 1, 4]]], float)


def publish_function(root: Path, model: str = "quadratic") -> Artifact:
    """x [n, 3] → y [n, 2] and every derivative of it; see ``QUADRATIC``."""
    x, tangent = tensor("x", "float64", "n", 3), tensor("tangent_x", "float64", "n", "k", 3)
    cotangent = tensor("cotangent_y", "float64", "n", "k", 2)
    # name: (inputs, output, operands, their product)
    return _publish_einsums(
        root,
        model,
        QUADRATIC,
        {
            "value": ((x,), tensor("y", "float64", "n", 2), "x matrix x", "ni,jil,nl->nj"),
            "jacobian": (
                (x,),
                tensor("jacobian_y_x", "float64", "n", 2, 3),
                "matrix x",
                "jil,nl->nji",
            ),
            "vjp": (
                (x, cotangent),
                tensor("vjp_x", "float64", "n", "k", 3),
                "x cotangent_y matrix",
                "nl,nkj,jil->nki",
            ),
            "jvp": (
                (x, tangent),
                tensor("jvp_y", "float64", "n", "k", 2),
                "x tangent_x matrix",
                "nl,nki,jil->nkj",
            ),
            "hvp": (
                (x, tangent, cotangent),
                tensor("hvp_x", "float64", "n", "k", 3),
                "tangent_x cotangent_y matrix",
                "nkl,nkj,jil->nki",
            ),
            "hessian": (
                (x,),
                tensor("hessian_y_x_x", "float64", "n", 2, 3, 3),
                "ones matrix",
                "n,jil->njil",
            ),
        },
    )


def publish_scalar(root: Path, model: str = "bowl") -> Artifact:
    """x [n, 3] → f [n], ½ xᵀ Q x with the first matrix of ``QUADRATIC``, and its derivatives."""
    x, tangent = tensor("x", "float64", "n", 3), tensor("tangent_x", "float64", "n", "k", 3)
    cotangent = tensor("cotangent_f", "float64", "n", "k")
    return _publish_einsums(
        root,
        model,
        QUADRATIC[0],
        {
            "value": ((x,), tensor("f", "float64", "n"), "x matrix x", "ni,il,nl->n"),
            "gradient": ((x,), tensor("gradient_f_x", "float64", "n", 3), "matrix x", "il,nl->ni"),
            "vjp": (
                (x, cotangent),
                tensor("vjp_x", "float64", "n", "k", 3),
                "x cotangent_f matrix",
                "nl,nk,il->nki",
            ),
            "jvp": (
                (x, tangent),
                tensor("jvp_f", "float64", "n", "k"),
                "x tangent_x matrix",
                "nl,nki,il->nk",
            ),
            "hvp": (
                (x, tangent),
                tensor("hvp_x", "float64", "n", "k", 3),
                "tangent_x matrix",
                "nkl,il->nki",
            ),
        },
    )


def publish_hill(root: Path, model: str = "hill", sign: float = -1.0) -> Artifact:
    """x [n, 10] → f [n] = ± ½ Σ (x − 1)², the logarithm of a normal density, and derivatives."""
    x, tangent = tensor("x", "float64", "n", 10), tensor("tangent_x", "float64", "n", "k", 10)
    constants = {"one": np.float64(1), "half": np.float64(sign / 2), "sign": np.float64(sign)}
    graphs = {
        "value": (
            (x,),
            tensor("f", "float64", "n"),
            [node("Sub", "x one", "d"), node("Mul", "d half", "h"),
             node("Einsum", "d h", "f", equation="ni,ni->n")],
        ),
        "gradient": (
            (x,),
            tensor("gradient_f_x", "float64", "n", 10),
            [node("Sub", "x one", "d"), node("Mul", "d sign", "gradient_f_x")],
        ),
        "hvp": (
            (x, tangent),
            tensor("hvp_x", "float64", "n", "k", 10),
            [node("Mul", "x zero", "z"), node("Unsqueeze", "z axis", "w"),
             node("Mul", "tangent_x sign", "t"), node("Add", "t w", "hvp_x")],
        ),
    }  # fmt: skip
    random = np.random.default_rng(0)
    given = {"x": random.normal(size=(4, 10)), "tangent_x": random.normal(size=(4, 2, 10))}
    given["gradient_f_x"] = sign * (given["x"] - 1)
    given["f"] = sign / 2 * ((given["x"] - 1) ** 2).sum(1)
    given["hvp_x"] = sign * given["tangent_x"]
    constants |= {"zero": np.float64(0), "axis": np.array([1])}  # type: ignore[dict-item]
    functions, files, samples = {}, {}, {}
    for name, (inputs, output, nodes) in graphs.items():
        used = {i for each in nodes for i in each.input}
        functions[name] = function(name, inputs, (output,))
        content = {k: v for k, v in constants.items() if k in used}
        files[f"{name}.onnx"] = graph(nodes, inputs, (output,), **content)  # type: ignore[arg-type]
        samples |= {f"{name}.{t.name}": given[t.name] for t in (*inputs, output)}
    return _publish_kind_function(root, model, functions, files, samples)


def publish_mixed(root: Path, model: str = "mixed") -> Artifact:
    """x [n, 2], theta [2] and whole numbers m [n] → y = m · (x · theta) [n] and 1/x [n, 2].

    ``theta`` is a parameter: it has no rows, and ``vjp_theta`` sums over them.
    """
    x, theta = tensor("x", "float64", "n", 2), tensor("theta", "float64", 2)
    m = tensor("m", "int64", "n")
    y, inverse = tensor("y", "float64", "n"), tensor("inverse", "float64", "n", 2)
    cotangents = (tensor("cotangent_y", "float64", "n", "k"),
                  tensor("cotangent_inverse", "float64", "n", "k", 2))  # fmt: skip
    vjp = (tensor("vjp_x", "float64", "n", "k", 2), tensor("vjp_theta", "float64", "k", 2))
    cast = node("Cast", "m", "f", to=TensorProto.DOUBLE)
    graphs = {
        "value": (
            (x, m, theta),
            (y, inverse),
            [cast, node("Einsum", "f x theta", "y", equation="n,ni,i->n"),
             node("Reciprocal", "x", "inverse")],
        ),
        "vjp": (
            (x, m, theta, *cotangents),
            vjp,
            [cast, node("Reciprocal", "x", "r"), node("Mul", "r r", "s"), node("Neg", "s", "d"),
             node("Einsum", "f theta cotangent_y", "a", equation="n,i,nk->nki"),
             node("Einsum", "d cotangent_inverse", "b", equation="ni,nki->nki"),
             node("Add", "a b", "vjp_x"),
             node("Einsum", "f x cotangent_y", "vjp_theta", equation="n,ni,nk->ki")],
        ),
    }  # fmt: skip
    random = np.random.default_rng(0)
    given = {
        t.name: random.normal(size=[{"n": 3, "k": 2}.get(s, s) for s in t.shape])  # type: ignore[arg-type]
        for t in (x, theta, *cotangents)
    }
    given["m"] = np.array([2, -1, 3])
    given["y"] = given["m"] * (given["x"] @ given["theta"])
    given["inverse"] = 1 / given["x"]
    weights = given["m"][:, None] * given["cotangent_y"]
    given["vjp_theta"] = np.einsum("nk,ni->ki", weights, given["x"])
    given["vjp_x"] = (
        weights[..., None] * given["theta"]
        - given["cotangent_inverse"] / (given["x"] ** 2)[:, None]
    )
    functions, files, samples = {}, {}, {}
    for name, (inputs, outputs, nodes) in graphs.items():
        functions[name] = function(name, inputs, outputs)
        files[f"{name}.onnx"] = graph(nodes, inputs, outputs)
        samples |= {f"{name}.{t.name}": given[t.name] for t in (*inputs, *outputs)}
    return _publish_kind_function(root, model, functions, files, samples)


def publish_scaled(root: Path, model: str = "scaled") -> Artifact:
    """x [n] and a single number t [] → y = t x [n] and the single number t²."""
    inputs = (tensor("x", "float64", "n"), tensor("t", "float64"))
    outputs = (tensor("y", "float64", "n"), tensor("square", "float64"))
    nodes = [node("Mul", "x t", "y"), node("Mul", "t t", "square")]
    x, t = np.array([1.0, 2.0, 3.0]), np.array(2.0)
    return _publish_kind_function(
        root,
        model,
        {"value": function("value", inputs, outputs)},
        {"value.onnx": graph(nodes, inputs, outputs)},
        {"value.x": x, "value.t": t, "value.y": x * t, "value.square": t * t},
    )


def _publish_einsums(
    root: Path,
    model: str,
    matrix: np.ndarray,
    formulas: dict[str, tuple[tuple[Tensor, ...], Tensor, str, str]],
) -> Artifact:
    """Functions that are products of their inputs and ``matrix``; ``value`` is half of its own."""
    random = np.random.default_rng(0)
    functions, files, samples = {}, {}, {}
    for name, (inputs, output, operands, formula) in formulas.items():
        given = {
            t.name: random.normal(size=[{"n": 4, "k": 2}.get(s, s) for s in t.shape])  # type: ignore[arg-type]
            for t in inputs
        }
        used = operands.split()
        constants: dict[str, np.ndarray] = {
            "matrix": matrix * (0.5 if name == "value" else 1.0),
            "zero": np.zeros(()),
            "one": np.ones(()),
        }
        nodes = [node("Einsum", " ".join(used), output.name, equation=formula)]
        if "ones" in used:
            nodes = [
                node("Mul", "x zero", "zeros"),
                node("Einsum", "zeros", "sums", equation="ni->n"),
                node("Add", "sums one", "ones"),
                *nodes,
            ]
        wanted = {i for each in nodes for i in each.input}
        files[f"{name}.onnx"] = graph(
            nodes, inputs, (output,), **{k: v for k, v in constants.items() if k in wanted}
        )
        arrays = {**given, "matrix": constants["matrix"], "ones": np.ones(4)}
        functions[name] = function(name, inputs, (output,))
        samples |= {f"{name}.{key}": value for key, value in given.items()}
        samples[f"{name}.{output.name}"] = np.einsum(formula, *(arrays[each] for each in used))
    return _publish_kind_function(root, model, functions, files, samples)


def _publish_kind_function(
    root: Path,
    model: str,
    functions: dict[str, Function],
    files: dict[str, bytes],
    samples: dict[str, np.ndarray],
) -> Artifact:
    fits = samples["value.x"].shape[1:] == (3,)
    manifest = FunctionManifest(
        model=model,
        version=1,
        created_utc=datetime(2026, 1, 2, tzinfo=UTC),
        functions=functions,
        files={},
        ranges={"x": (-3.0, 3.0)},
        example={"x": [1.0, 2.0, 3.0]} if fits else {},
    )
    with Draft(root, model) as draft:
        with (draft.folder / "samples.npz").open("wb") as stream:
            np.savez(stream, **samples)  # type: ignore[arg-type]
        for file, content in files.items():
            (draft.folder / file).write_bytes(content)
        (draft.folder / "report.md").write_text("# A quadratic function\n")
        return draft.publish(manifest)


def publish(
    root: Path,
    kind: type[Any],
    model: str,
    functions: dict[str, Function],
    samples: dict[str, np.ndarray],
    files: dict[str, bytes],
    extra: dict[str, Any],
) -> Artifact:
    """Publish what was made above."""
    layer = Layer(
        name="all", type="Polynomial", output_shape=(1,), formula="4 = 4", count=4, multiply_adds=3
    )
    manifest = kind(
        model=model,
        version=1,
        created_utc=datetime(2026, 1, 2, tzinfo=UTC),
        functions=functions,
        files={},
        parameters=Parameters(total=4, multiply_adds=3, layers=(layer,)),
        data=Data(name="none", sha256="0" * 64, rows=7, splits={"train": 7}),
        training=Training(
            git_commit="0" * 40,
            config={},
            seed=0,
            epochs=0,
            wall_seconds=0,
            device="cpu",
            torch_version="none",
        ),
        metrics={"mse": 0.01},
        **extra,
    )
    with Draft(root, model) as draft:
        with (draft.folder / "samples.npz").open("wb") as stream:
            np.savez(stream, **samples)  # type: ignore[arg-type]
        for name, content in files.items():
            (draft.folder / name).write_bytes(content)
        return draft.publish(manifest)


def publish_all(root: Path) -> None:
    """One of each kind, under the names that requests ask for by default."""
    publish_curve(root)
    publish_classifier(root)
    publish_sigmoid_conv(root)


def publish_expected(root: Path) -> None:
    """Every model that the service expects: hypothesis finds their names in its source, and asks.

    One that is missing is a 503, as it should be, where a test wants none.
    """
    publish_all(root)
    publish_curve(root, "curve-poly")
    publish_curve(root, "curve-gp")
    publish_classifier(root, "cifar-baseline")


def png(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", size, colour), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file of the format ``kind``."""
    from io import BytesIO

    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
