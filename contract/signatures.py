"""What a model can do, found by the signatures of its functions, not by its manifest's kind.

``/predict`` needs a float64 [n] → [n] function ``value``, whoever published it; ``/classify`` a
uint8 image in and probabilities with class names out. Each function here looks for one such
signature in a manifest, and raises WrongSignature with the reason where it isn't there.

A dimension named ``n`` counts rows that don't depend on each other: a run may take some of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from contract.manifest import CommonManifest, Function, Tensor, shape_text
from contract.pixels import Resize

ROWS = "n"  # the name of the dimension that counts independent rows

Shape = tuple[int | str, ...]

LOSS_GRADIENT = "loss_gradient"
LOSS_GRADIENT_INPUTS: dict[str, Shape] = {
    "x": (4, 4),
    "kernel": (3, 3),
    "weights": (4,),
    "label": (),
}
LOSS_GRADIENT_OUTPUTS: dict[str, Shape] = {
    "prediction": (),
    "loss": (),
    "preactivation": (2, 2),
    "activation": (2, 2),
    "prediction_gradient": (),
    "activation_gradient": (2, 2),
    "preactivation_gradient": (2, 2),
    "kernel_gradient": (3, 3),
    "weights_gradient": (4,),
    "input_gradient": (4, 4),
}
# The functions that give the derivatives of a curve, by order.
DERIVATIVES = {1: "gradient", 2: "gradient2", 3: "gradient3"}
# Those that give standard deviations of value and derivatives, by order; none of them is required.
DEVIATIONS = {0: "value_sd", 1: "gradient_sd", 2: "gradient2_sd"}

# How familiar a picture is, beside a classifier's probabilities: the share of validation pictures
# that are less so. Not required.
FAMILIAR = "familiar"


class WrongSignature(Exception):
    """A model doesn't have the functions that were looked for. The text says which and why."""


@dataclass(frozen=True)
class Curve:
    """A function of one variable: the names of its input and outputs.

    ``derivatives`` gives the output for each order that there is. ``domain`` is the smallest and
    the largest x of the training data, infinite where nothing was recorded. ``deviations`` gives
    the output with the standard deviation of value (order 0) and derivatives, where there is one;
    ``degrees_of_freedom`` are those of Student's t that makes intervals of it, None for the normal.
    """

    x: str
    y: str
    derivatives: dict[int, str]
    domain: tuple[float, float]
    deviations: dict[int, str] = field(default_factory=dict)
    degrees_of_freedom: float | None = None


@dataclass(frozen=True)
class Classifier:
    """An image classifier: uint8 [n, side, side, 3] in, float32 [n, classes] out."""

    image: str
    probabilities: str
    side: int
    classes: tuple[str, ...]
    saliency: str | None = None  # the output of the function ``saliency``, if there is one
    label: str | None = None  # its input: the index of the class to explain
    resize: Resize = "crop"  # what becomes of a picture that isn't square
    familiar: str | None = None  # a second output of ``probabilities``, float32 [n] from 0 to 1


def curve(manifest: CommonManifest) -> Curve:
    """The model as a function of one variable. Raises WrongSignature."""
    value = _function(manifest, "value")
    x = _only(value.inputs, "value", "input")
    _check(x, "value", "float64", (ROWS,))
    y = value.outputs[0]
    _check(y, "value", "float64", (ROWS,))
    derivatives = {}
    for order, name in DERIVATIVES.items():
        if name not in manifest.functions:
            continue
        function = manifest.functions[name]
        _check(_only(function.inputs, name, "input"), name, "float64", (ROWS,))
        for tensor in function.outputs:
            _check(tensor, name, "float64", (ROWS,))
        if function.inputs[0].name != x.name:
            raise WrongSignature(f"{name} takes {function.inputs[0].name}, but value {x.name}")
        others = [tensor.name for tensor in function.outputs if tensor.name != y.name]
        if not others:
            raise WrongSignature(f"{name} gives nothing but {y.name}")
        derivatives[order] = others[0]
    deviations = {}
    for order, name in DEVIATIONS.items():
        if name not in manifest.functions:
            continue
        function = manifest.functions[name]
        _check(_only(function.inputs, name, "input"), name, "float64", (ROWS,))
        output = _only(function.outputs, name, "output")
        _check(output, name, "float64", (ROWS,))
        if function.inputs[0].name != x.name:
            raise WrongSignature(f"{name} takes {function.inputs[0].name}, but value {x.name}")
        deviations[order] = output.name
    return Curve(
        x=x.name,
        y=y.name,
        derivatives=derivatives,
        domain=getattr(manifest, "domain", None) or (-inf, inf),
        deviations=deviations,
        degrees_of_freedom=getattr(manifest, "degrees_of_freedom", None),
    )


def classifier(manifest: CommonManifest) -> Classifier:
    """The model as an image classifier. Raises WrongSignature."""
    classes: tuple[str, ...] = getattr(manifest, "classes", None) or ()
    if not classes:
        raise WrongSignature("it names no classes")
    name = "probabilities"
    function = _function(manifest, name)
    image = _only(function.inputs, name, "input")
    side = image.shape[1] if len(image.shape) > 1 else 0
    if not isinstance(side, int):
        raise WrongSignature(f"{name} takes images of no fixed size")
    _check(image, name, "uint8", (ROWS, side, side, 3))
    output = next((t for t in function.outputs if t.name == name), function.outputs[0])
    _check(output, name, "float32", (ROWS, len(classes)))
    resize: Resize = getattr(manifest, "resize", "crop")
    found = Classifier(image.name, output.name, side, tuple(classes), resize=resize)
    for tensor in function.outputs:
        if tensor.name == FAMILIAR and tensor is not output:
            _check(tensor, name, "float32", (ROWS,))
            found = replace(found, familiar=FAMILIAR)
    if "saliency" not in manifest.functions:
        return found
    name = "saliency"
    function = manifest.functions[name]
    if len(function.inputs) != 2:
        raise WrongSignature(f"{name} should take an image and a class")
    for tensor in function.inputs:
        if tensor.name == image.name:
            _check(tensor, name, "uint8", image.shape)
    labels = [tensor for tensor in function.inputs if tensor.name != image.name]
    label = _only(labels, name, "input besides the image")
    _check(label, name, "int64", (ROWS,))
    output = function.outputs[0]
    _check(output, name, "float32", (ROWS, side, side))
    return replace(found, saliency=output.name, label=label.name)


def loss_gradient(manifest: CommonManifest) -> Function:
    """The function with every gradient of the sigmoid convolution. Raises WrongSignature."""
    function = _function(manifest, LOSS_GRADIENT)
    for what, tensors, shapes in (
        ("input", function.inputs, LOSS_GRADIENT_INPUTS),
        ("output", function.outputs, LOSS_GRADIENT_OUTPUTS),
    ):
        found = {tensor.name: tensor for tensor in tensors}
        for name, shape in shapes.items():
            if name not in found:
                raise WrongSignature(f"{LOSS_GRADIENT} has no {what} {name}")
            _check(found[name], LOSS_GRADIENT, "float64", (ROWS, *shape))
    extra = {tensor.name for tensor in function.inputs} - LOSS_GRADIENT_INPUTS.keys()
    if extra:
        raise WrongSignature(f"{LOSS_GRADIENT} needs {', '.join(sorted(extra))} as well")
    return function


def check_kind(manifest: CommonManifest) -> None:
    """Does the model have what its kind promises? Raises WrongSignature where not."""
    kind: str = getattr(manifest, "kind", "")
    if kind == "curve":
        found = curve(manifest)
        for order, name in DERIVATIVES.items():
            if order not in found.derivatives:
                raise WrongSignature(f"a curve needs the function {name}")
    elif kind == "classifier":
        classifier(manifest)
    elif kind == "sigmoid-conv":
        loss_gradient(manifest)
    for name, function in manifest.functions.items():
        _names_are_known(name, function)


def _names_are_known(name: str, function: Function) -> None:
    """No name is given twice, and the inputs tell how large every output will be."""
    tensors = (*function.inputs, *function.outputs)
    for side in (function.inputs, function.outputs):
        names = [tensor.name for tensor in side]
        if len(set(names)) < len(names):
            raise WrongSignature(f"{name} names two of its inputs or outputs alike")
    sizes = _sizes(function.inputs)
    for tensor in function.outputs:
        for size in tensor.shape:
            if isinstance(size, str) and size not in sizes:
                raise WrongSignature(f"{name}: no input has the size {size} of {tensor.name}")
    for tensor in tensors:
        if any(isinstance(size, int) and size < 1 for size in tensor.shape):
            raise WrongSignature(f"{name}: {tensor.name} has a size under 1")


def _sizes(tensors: Iterable[Tensor]) -> set[str]:
    return {size for tensor in tensors for size in tensor.shape if isinstance(size, str)}


def rows_are_independent(function: Function) -> bool:
    """May a run take some of the rows, and the next one others?

    If ``n`` comes first in every output and in at least one input, and nowhere but first. An output
    without it sums over the rows, so that they belong together.
    """
    tensors = (*function.inputs, *function.outputs)
    return (
        all(tensor.shape[:1] == (ROWS,) for tensor in function.outputs)
        and any(tensor.shape[:1] == (ROWS,) for tensor in function.inputs)
        and not any(ROWS in tensor.shape[1:] for tensor in tensors)
    )


def _function(manifest: CommonManifest, name: str) -> Function:
    function = manifest.functions.get(name)
    if function is None:
        raise WrongSignature(f"it has no function {name}")
    return function


def _only(tensors: Sequence[Tensor], function: str, what: str) -> Tensor:
    if len(tensors) != 1:
        raise WrongSignature(f"{function} should have one {what}, not {len(tensors)}")
    return tensors[0]


def _check(tensor: Tensor, function: str, dtype: str, shape: Shape) -> None:
    if tensor.dtype != dtype or tensor.shape != shape:
        raise WrongSignature(
            f"{function}: {tensor.name} should be {dtype}{shape_text(shape)}, "
            f"not {tensor.dtype}{shape_text(tensor.shape)}"
        )
