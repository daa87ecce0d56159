"""``/w10-gradient``: every derivative of the loss of a one-filter sigmoid convolution.

The homework's third question. A 4×4 input is cross-correlated with a 3×3 kernel (stride 1, no
padding, no bias) to 2×2; a sigmoid follows; a linear neuron of four weights gives ŷ; the loss is
(ŷ − y)². The gradients come from the artifact's ``loss_gradient``, traced from autograd.
"""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.responses import Response

from contract.manifest import Function
from contract.signatures import LOSS_GRADIENT_OUTPUTS
from service.api import w10_marking
from service.runtime.dataplane import infer
from service.runtime.loader import Model
from service.runtime.queue import Queue
from service.web.body import read_json
from service.web.direct import direct
from service.web.errors import Invalid, from_validation
from service.web.openapi import json_body, json_response, problems
from service.web.query import refuse_query
from service.web.state import services

# Far beyond any sigmoid's useful range, and small enough that no sum or square overflows.
Real = Annotated[float, Field(allow_inf_nan=False, ge=-1e100, le=1e100)]
Row3 = Annotated[list[Real], Field(min_length=3, max_length=3)]
Row4 = Annotated[list[Real], Field(min_length=4, max_length=4)]
Matrix3 = Annotated[list[Row3], Field(min_length=3, max_length=3)]
Matrix4 = Annotated[list[Row4], Field(min_length=4, max_length=4)]

MODEL = "sigmoid-conv"
MOST_NUMBERS = 20_000  # a body needs 30 numbers; one with more than this is refused unparsed
WANTED = tuple(LOSS_GRADIENT_OUTPUTS)
STEPS = (
    "preactivation",
    "activation",
    "prediction_gradient",
    "activation_gradient",
    "preactivation_gradient",
)

EXAMPLE: dict[str, Any] = {
    "input": [
        [0.1, 0.2, 0.3, 0.4],
        [0.5, 0.6, 0.7, 0.8],
        [0.9, 1.0, 1.1, 1.2],
        [1.3, 1.4, 1.5, 1.6],
    ],
    "kernel": [[0.1, 0.0, -0.1], [0.2, 0.1, 0.0], [0.0, -0.2, 0.1]],
    "weights": [0.5, -0.5, 0.25, 0.75],
    "label": 1.0,
    "naming": "matrix",
}


Cells = Annotated[
    list[Annotated[list[Real | None], Field(min_length=2, max_length=2)]],
    Field(min_length=2, max_length=2),
]


class StudentAnswer(BaseModel):
    """A student's own numbers, as many as there are; null in a 2×2 for one that isn't there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gradient: Real | None = Field(default=None, description="∂loss/∂w10", examples=[-0.2145])
    preactivation: Cells | None = Field(default=None, description="2×2: z")
    activation: Cells | None = Field(default=None, description="2×2: a")
    prediction: Real | None = Field(default=None, description="ŷ")
    loss: Real | None = Field(default=None, description="(ŷ − y)²")
    prediction_gradient: Real | None = Field(default=None, description="∂loss/∂ŷ")
    activation_gradient: Cells | None = Field(default=None, description="2×2: ∂loss/∂a")
    preactivation_gradient: Cells | None = Field(default=None, description="2×2: ∂loss/∂z")


def _number_alone(value: object) -> object:
    """A number for an answer is ∂loss/∂w10."""
    alone = isinstance(value, int | float) and not isinstance(value, bool)
    return {"gradient": value} if alone else value


class W10Query(BaseModel):
    """One sample with the parameters at which to differentiate."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    input: Matrix4 = Field(description="The 4×4 input, row by row", examples=[EXAMPLE["input"]])
    kernel: Matrix3 = Field(description="The 3×3 kernel, row by row", examples=[EXAMPLE["kernel"]])
    weights: Row4 = Field(
        description="The four weights of the output neuron, for the 2×2 activations row by row",
        examples=[EXAMPLE["weights"]],
    )
    label: Real = Field(description="The target y", examples=[1.0])
    naming: Literal["matrix", "sequential"] = Field(
        default="matrix",
        description="What w10 names. matrix: kernel row 1, column 0, counted from 0. sequential: "
        "w1 … w9 are the kernel row by row and w10 … w13 the weights, so w10 is weights[0]",
    )
    answer: Annotated[
        StudentAnswer | None,
        BeforeValidator(_number_alone, json_schema_input_type=StudentAnswer | Real | None),
        Field(
            description="Your own ∂loss/∂w10, or your own numbers by step: they are marked",
            examples=[-0.2145],
        ),
    ] = None


class W10(BaseModel):
    """The derivative asked for."""

    parameter: str = Field(description="What w10 names", examples=["kernel[1][0]"])
    gradient: float = Field(description="∂loss/∂w10", examples=[-0.0123])


class Gradients(BaseModel):
    """∂loss by every parameter and input, whatever the naming."""

    kernel: list[list[float]] = Field(description="3×3: ∂loss/∂kernel")
    weights: list[float] = Field(description="4: ∂loss/∂weights")
    input: list[list[float]] = Field(description="4×4: ∂loss/∂input")


class Steps(BaseModel):
    """The intermediate results of the chain rule, in the order in which they are computed."""

    preactivation: list[list[float]] = Field(description="2×2: cross-correlation of the input")
    activation: list[list[float]] = Field(description="2×2: its sigmoid")
    prediction_gradient: float = Field(description="∂loss/∂ŷ = 2(ŷ − y)")
    activation_gradient: list[list[float]] = Field(description="2×2: ∂loss/∂activation")
    preactivation_gradient: list[list[float]] = Field(description="2×2: ∂loss/∂preactivation")


class Step(BaseModel):
    """One step of a student's calculation."""

    step: str = Field(description="As in the answer that was sent", examples=["activation"])
    correct: bool = Field(description="Right, within the tolerance")
    follows: bool = Field(
        description="Not right, but it follows from the student's numbers before it"
    )
    wrong: list[list[int]] = Field(description="Row and column of each wrong number of a 2×2")
    slips: list[str] = Field(description="The usual slips that give this number, in words")
    message: str = Field(description="The same for people", examples=["Wrong: σ′ was forgotten."])


class Marking(BaseModel):
    """A student's answer, marked."""

    correct: bool = Field(description="Is every number right?")
    went_wrong_at: str | None = Field(description="The step of the first mistake, if any")
    message: str = Field(description="The same for people", examples=["Right."])
    tolerance: float = Field(
        description="How far a number may be off, relative to the right one", examples=[0.005]
    )
    steps: list[Step] = Field(description="Each step that was sent, in order")


class W10Answer(BaseModel):
    """Prediction, loss, the derivative asked for, and all others."""

    model: str = Field(description="The model that answered", examples=[MODEL])
    version: int = Field(description="Its version", examples=[1])
    prediction: float = Field(description="ŷ")
    loss: float = Field(description="(ŷ − y)²")
    w10: W10
    gradients: Gradients
    steps: Steps
    marking: Marking | None = Field(default=None, description="If an answer was sent")


def router() -> APIRouter:
    """The endpoint."""
    routes = APIRouter(tags=["sigmoid convolution"])

    @routes.post(
        "/w10-gradient",
        summary="Differentiate the loss of a sigmoid convolution by w10",
        responses={200: {"model": W10Answer}, **problems(400, 408, 413, 415, 422, 429, 503)},
        openapi_extra=json_body(W10Query),
    )
    @direct
    async def w10_gradient(request: Request) -> Response:
        """∂(ŷ − y)²/∂w10, with every other gradient and each step of the chain rule."""
        shared = services(request)
        limits = shared.settings
        refuse_query(request)
        body = await read_json(request, limits.max_json_bytes, MOST_NUMBERS)
        try:
            query = W10Query.model_validate_json(body)
        except ValidationError as error:
            raise from_validation(error) from None
        model, function = shared.registry.loss_gradient(MODEL)
        values = {
            "x": query.input,
            "kernel": query.kernel,
            "weights": query.weights,
            "label": query.label,
        }
        got = await _run(model, function, values, shared.queue)
        kernel, weights = got["kernel_gradient"], got["weights_gradient"]
        sequential = query.naming == "sequential"
        marking = {}
        if query.answer is not None:
            turned = values | {"kernel": [row[::-1] for row in query.kernel[::-1]]}
            flipped = await _run(model, function, turned, shared.queue)
            given = query.answer.model_dump()
            marks = w10_marking.mark(given, got, flipped, values, sequential=sequential)
            marking = {"marking": marks}
        return json_response(
            {
                "model": model.manifest.model,
                "version": model.manifest.version,
                "prediction": got["prediction"],
                "loss": got["loss"],
                "w10": {
                    "parameter": "weights[0]" if sequential else "kernel[1][0]",
                    "gradient": weights[0] if sequential else kernel[1][0],
                },
                "gradients": {
                    "kernel": kernel,
                    "weights": weights,
                    "input": got["input_gradient"],
                },
                "steps": {name: got[name] for name in STEPS},
                **marking,
            }
        )

    return routes


async def _run(
    model: Model, function: Function, values: dict[str, Any], queue: Queue
) -> dict[str, Any]:
    """Every output of the graph. Raises Invalid where one isn't finite."""
    # The graph takes a batch; this is a batch of one.
    batch = {t.name: np.array([values[t.name]], np.float64) for t in function.inputs}
    outputs = await infer(model, batch, WANTED, queue)
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise Invalid("These values are too large: the result is not a finite number")
    return {name: output[0].tolist() for name, output in outputs.items()}
