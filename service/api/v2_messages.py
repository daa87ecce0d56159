"""The messages of the Open Inference Protocol, and the names of its data types."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
DTYPES = {datatype: np.dtype(dtype) for dtype, datatype in DATATYPES.items()}

Datatype = Literal["FP64", "FP32", "INT64", "UINT8"]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flat = Annotated[list[Finite], Field(fail_fast=True)]
Rows = Annotated[list[Flat], Field(fail_fast=True)]
Maps = Annotated[list[Rows], Field(fail_fast=True)]
Images = Annotated[list[Maps], Field(fail_fast=True)]

EXAMPLE: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [0.1, 3.0]}],
    "outputs": [{"name": "y"}, {"name": "gradient"}],
}


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives."""

    name: str = Field(description="Its name", examples=["gradient"])
    datatype: Datatype = Field(description="Type of its elements")
    shape: list[int] = Field(description="Sizes; -1 is chosen by the caller", examples=[[-1]])


class ServerMetadata(BaseModel):
    """The server."""

    name: str = Field(default="gradserve", description="Its name")
    version: str = Field(description="Its version")
    extensions: list[str] = Field(default=[], description="Extensions of the protocol: none")


class ModelMetadata(BaseModel):
    """A model: inputs and outputs of all its functions."""

    name: str = Field(description="Its name", examples=["curve-mlp"])
    versions: list[str] = Field(description="The version in service", examples=[["1"]])
    platform: str = Field(default="onnxruntime_onnx", description="What runs it")
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """A model serves."""

    name: str = Field(description="Its name", examples=["curve-mlp"])
    ready: Literal[True] = Field(default=True, description="Always the same")


class ServerLive(BaseModel):
    """The process answers."""

    live: Literal[True] = Field(default=True, description="Always the same")


class InputTensor(BaseModel):
    """An input with its data."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=64, description="Its name", examples=["x"])
    shape: list[Annotated[int, Field(ge=1, le=10_000_000)]] = Field(
        min_length=1, max_length=4, description="Its sizes", examples=[[2]]
    )
    datatype: Datatype = Field(description="Type of its elements", examples=["FP64"])
    parameters: dict[str, JsonValue] = Field(default={}, description="Ignored")
    data: Annotated[
        Flat | Rows | Maps | Images,
        Field(union_mode="left_to_right", description="Its elements row by row, flat or nested"),
    ]


class WantedTensor(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=64, description="Its name", examples=["gradient"])
    parameters: dict[str, JsonValue] = Field(default={}, description="Ignored")


class InferQuery(BaseModel):
    """What to compute from what."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    id: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Comes back in the answer"
    )
    parameters: dict[str, JsonValue] = Field(default={}, description="Ignored")
    inputs: list[InputTensor] = Field(min_length=1, max_length=16, description="The inputs")
    outputs: list[WantedTensor] = Field(
        default=[], max_length=64, description="The outputs wanted; all there are, if none is named"
    )


class OutputTensor(BaseModel):
    """An output with its data."""

    name: str = Field(description="Its name", examples=["gradient"])
    datatype: Datatype = Field(description="Type of its elements")
    shape: list[int] = Field(description="Its sizes", examples=[[2]])
    data: list[float] = Field(description="Its elements row by row", examples=[[2.8, 0.7]])


class Inference(BaseModel):
    """The answer."""

    model_name: str = Field(description="The model that answered", examples=["curve-mlp"])
    model_version: str = Field(description="Its version", examples=["1"])
    id: str | None = Field(default=None, description="That of the request")
    outputs: list[OutputTensor]
