"""The manifest of an artifact, as pydantic models: one class for each kind of model.

A manifest is data only. It names the functions an artifact offers (each an ONNX graph), the
sha256 of every file, and what people want to know about the model: parameters, data, training and
metrics. Unknown fields are refused, so that a typing error can't pass for a setting.

Schema version 2 added the kind ``function`` and made provenance optional for it and for
classifiers; a version 1 document is a valid version 2 document in every other respect.

How a ``function`` artifact names its tensors, for inputs x, z and outputs y, f (f a number a row),
``n`` rows and ``k`` directions a row, ``*x`` standing for the sizes of x without its batch:

===========  ==================================================  ===============================
function     inputs besides x, z                                 outputs
===========  ==================================================  ===============================
value                                                            y [n, *y], f [n]
gradient                                                         gradient_f_x [n, *x], …
jacobian                                                         jacobian_y_x [n, *y, *x], …
vjp          cotangent_y [n, k, *y], cotangent_f [n, k]          vjp_x [n, k, *x], vjp_z …
jvp          tangent_x [n, k, *x], tangent_z …                   jvp_y [n, k, *y], jvp_f [n, k]
hvp          tangent_x …; cotangent_y … unless the only          hvp_x [n, k, *x], hvp_z …
             differentiable output is a number a row
hessian                                                          hessian_f_x_x [n, *x, *x], …
===========  ==================================================  ===============================

- ``gradient``, ``jacobian`` and ``hessian`` have one output for every pair (hessian: output and
  ordered pair of inputs). ``gradient`` covers the outputs that are a number a row.
- ``vjp`` sums over the outputs, ``jvp`` and ``hvp`` over the inputs, each with its own vector:
  zeros for all but one give a single block. The j-th tangent of hvp goes with the j-th cotangent.
- Integer inputs have no tangent and integer outputs no cotangent.
- An input without batch (``parameters=`` when published) has a shape without ``n``:
  tangent_theta [k, *theta]; vjp_theta and hvp_theta [k, *theta] are sums over the rows;
  jacobian_y_theta is [n, *y, *theta], each row's own. Without any batched input nothing has ``n``.
- ``loss_gradient`` takes x, z and the targets, and gives ``loss`` ([n], or [] for a loss that is a
  mean or sum over the batch) and ``gradient_loss_<parameter>`` [*parameter], that of the sum.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    model_validator,
)

from contract.pixels import Resize

SCHEMA_VERSION: Literal[2] = 2  # of what is published now
READABLE_SCHEMAS = (1, 2)

ModelName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Lower-case letters, digits and hyphens",
        examples=["curve-mlp"],
    ),
]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TensorType = Literal["float64", "float32", "int64", "uint8"]
Precision = Literal["fp64", "fp32", "int8"]


def _finite(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    # The model's own setting does not reach into JsonValue.
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise ValueError("every number should be finite") from None
    return values


JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_finite)]


class Record(BaseModel):
    """Base of every part of the manifest: immutable, no unknown fields, no NaN or infinity.

    JSON has no NaN: one that was published would read back as null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tensor(Record):
    """One input or output of a function."""

    name: str
    dtype: TensorType
    shape: tuple[int | str, ...] = Field(
        description="Sizes; a name such as 'n' stands for a size chosen by the caller"
    )


def shape_text(shape: Iterable[int | str]) -> str:
    """A shape for people: ``[n, 3]``."""
    return f"[{', '.join(map(str, shape))}]"


class Agreement(Record):
    """How closely a graph agreed with PyTorch at export, and must agree when it is loaded.

    An element passes if |graph − reference| ≤ absolute_tolerance + relative_tolerance·|reference|;
    ``maximum_absolute_error`` is what was measured at export. The reference is ``samples.npz``.
    """

    maximum_absolute_error: float = Field(ge=0)
    absolute_tolerance: float = Field(ge=0)
    relative_tolerance: float = Field(ge=0)
    details: dict[str, float] = Field(
        default={}, description="Further figures, such as top-1 agreement or speed-up"
    )


class Graph(Record):
    """One ONNX file that computes a function at one precision."""

    file: FileName
    precision: Precision
    agreement: Agreement


class Function(Record):
    """A named function of the model, such as ``value`` or ``gradient``.

    ``graph`` is the reference. ``variants`` are faster graphs of the same signature, each of which
    may serve only where its own agreement holds on the machine that loads it.
    """

    inputs: tuple[Tensor, ...] = Field(min_length=1)
    outputs: tuple[Tensor, ...] = Field(min_length=1)
    graph: Graph
    variants: tuple[Graph, ...] = ()


class File(Record):
    """Checksum and size of one file of the artifact."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Layer(Record):
    """One row of the parameter summary."""

    name: str
    type: str = Field(examples=["Conv2d"])
    kernel: str | None = Field(default=None, description="Kernel, stride and padding, if any")
    output_shape: tuple[int, ...] = Field(description="Without the batch dimension")
    formula: str = Field(examples=["3·3·3·32 weights + 32 biases = 896"])
    count: int = Field(ge=0, description="Number of parameters, trained or frozen")
    multiply_adds: int = Field(ge=0, description="Multiply-adds for one example")


class Parameters(Record):
    """Parameter summary, with the comparison against independent counts."""

    total: int = Field(ge=0)
    trainable: int | None = Field(
        default=None, ge=0, description="How many of them were trained; null where not recorded"
    )
    multiply_adds: int = Field(ge=0, description="Multiply-adds for one example, all layers")
    layers: tuple[Layer, ...]
    compared: dict[str, int] = Field(
        default={}, description="The same total by other means, e.g. torchinfo, sum(p.numel())"
    )

    @model_validator(mode="after")
    def totals_match(self) -> "Parameters":
        if sum(layer.count for layer in self.layers) != self.total:
            raise ValueError("the layers' counts do not add up to the total")
        if sum(layer.multiply_adds for layer in self.layers) != self.multiply_adds:
            raise ValueError("the layers' multiply-adds do not add up to the total")
        return self


class Data(Record):
    """The data the model was trained on."""

    name: str
    sha256: Sha256
    rows: int = Field(ge=0)
    splits: dict[str, int] = Field(description="Rows in each split")


class Training(Record):
    """How the checkpoint was trained."""

    git_commit: str = Field(description="Commit of the training code, '-dirty' if it was changed")
    config: JsonObject
    seed: int
    epochs: int = Field(ge=0)
    wall_seconds: float = Field(ge=0)
    device: str = Field(examples=["cpu (2 threads)"])
    torch_version: str


class CommonManifest(Record):
    """Members of every manifest, whatever its kind.

    Provenance is optional: modules that were not trained by these jobs have none.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    model: ModelName
    version: int = Field(ge=1)
    created_utc: datetime
    functions: dict[str, Function] = Field(min_length=1)
    files: dict[FileName, File]
    parameters: Parameters | None = None
    data: Data | None = None
    training: Training | None = None
    metrics: JsonObject = {}

    @model_validator(mode="after")
    def files_are_listed(self) -> "CommonManifest":
        for name, function in self.functions.items():
            for graph in (function.graph, *function.variants):
                if self.files and graph.file not in self.files:
                    raise ValueError(f"function {name} needs {graph.file}, which 'files' lacks")
        return self


class TrainedManifest(CommonManifest):
    """An artifact of this project's own jobs: where it came from is always said."""

    parameters: Parameters
    data: Data
    training: Training
    metrics: JsonObject


class CurveManifest(TrainedManifest):
    """A function of one real variable with its derivatives."""

    kind: Literal["curve"] = "curve"
    domain: tuple[float, float] = Field(description="Smallest and largest x of the data")
    coefficients: tuple[float, ...] | None = Field(
        default=None,
        description="w_m, …, w_0 of a polynomial in x; absent for what isn't one, and where "
        "rounding would make them another function than the fit",
    )
    scaled_coefficients: tuple[float, ...] | None = Field(
        default=None,
        description="c_m, …, c_0 of a polynomial in t = (x − centre)/half_width",
    )
    scaling: tuple[float, float] | None = Field(
        default=None, description="centre and half_width of scaled_coefficients"
    )
    degrees_of_freedom: float | None = Field(
        default=None,
        ge=1,
        description="Of Student's t, which makes intervals of standard errors; absent: the normal",
    )


class ClassifierManifest(CommonManifest):
    """An image classifier."""

    kind: Literal["classifier"] = "classifier"
    resize: Resize = Field(
        default="crop",
        description="How a picture that isn't square is made so: crop takes its central square, "
        "pad adds grey bars, squash changes its proportions",
    )
    classes: tuple[str, ...] = Field(min_length=2, description="Labels by index")


class TrainedClassifierManifest(ClassifierManifest, TrainedManifest):
    """A classifier that was trained here, with its provenance: what such a job works with.

    On disk it is a ``ClassifierManifest`` that has every optional member.
    """


class SigmoidConvManifest(TrainedManifest):
    """The single sigmoid convolution whose loss gradient the third homework question asks for."""

    kind: Literal["sigmoid-conv"] = "sigmoid-conv"


class FunctionManifest(CommonManifest):
    """Any function of tensors with its derivatives; the module's docstring names its tensors."""

    schema_version: Literal[2] = SCHEMA_VERSION
    kind: Literal["function"] = "function"
    description: str | None = Field(
        default=None, max_length=2000, description="What it computes, for a person"
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default={}, description="Smallest and largest number of each input's examples"
    )
    example: dict[str, JsonValue] = Field(
        default={}, description="One row of every input, as nested lists, unless that is large"
    )

    @model_validator(mode="after")
    def has_a_value(self) -> "FunctionManifest":
        if "value" not in self.functions:
            raise ValueError("a function artifact needs the function 'value'")
        return self


AnyManifest = CurveManifest | ClassifierManifest | SigmoidConvManifest | FunctionManifest
Manifest = Annotated[AnyManifest, Field(discriminator="kind")]
MANIFEST: TypeAdapter[AnyManifest] = TypeAdapter(Manifest)
