"""The messages of the Open Inference Protocol, and the names of its data types."""

from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
DTYPES = {datatype: np.dtype(dtype) for dtype, datatype in DATATYPES.items()}

Datatype = Literal["FP64", "FP32", "INT64", "UINT8", "BYTES"]
# Clients write null for what they leave out.
Parameters = Annotated[
    dict[str, JsonValue] | None,
    Field(default=None, description="The protocol's; those not known here are ignored"),
]
Data = Annotated[
    list[Any],
    WithJsonSchema(
        {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array", "items": {}}]}}
    ),
]

EXAMPLE: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [0.1, 3.0]}],
    "outputs": [{"name": "y"}, {"name": "gradient"}],
}


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives."""

    name: str = Field(description="Its name", examples=["gradient"])
    datatype: Datatype = Field(description="Type of its elements")
    shape: list[int] = Field(description="Sizes; -1 is chosen by the caller", examples=[[-1]])


EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
]


class ServerMetadata(BaseModel):
    """The server."""

    name: str = Field(default="gradserve", description="Its name")
    version: str = Field(description="Its version")
    extensions: list[str] = Field(default=EXTENSIONS, description="Extensions of the protocol")


class ModelMetadata(BaseModel):
    """A model: inputs and outputs of all its functions."""

    name: str = Field(description="Its name", examples=["curve-mlp"])
    versions: list[str] = Field(description="The version in service", examples=[["1"]])
    platform: str = Field(default="onnxruntime_onnx", description="What runs it")
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexQuery(BaseModel):
    """Which versions to list."""

    model_config = ConfigDict(strict=True)

    ready: bool | None = Field(default=None, description="Only those that serve")


class IndexEntry(BaseModel):
    """A version in the artifacts folder."""

    name: str = Field(description="The model", examples=["curve-mlp"])
    version: str = Field(description="Its version", examples=["1"])
    state: Literal["READY", "UNAVAILABLE"] = Field(description="Does it serve?")
    reason: str = Field(default="", description="Why not")


class ConfigTensor(BaseModel):
    """A tensor as Triton's configuration has it."""

    name: str = Field(description="Its name", examples=["x"])
    data_type: str = Field(description="Type of its elements", examples=["TYPE_FP64"])
    dims: list[int] = Field(description="Sizes; -1 is chosen by the caller", examples=[[-1]])


class ModelConfig(BaseModel):
    """A model as Triton's configuration has it."""

    name: str = Field(description="Its name", examples=["curve-mlp"])
    platform: str = Field(default="onnxruntime_onnx", description="What runs it")
    backend: str = Field(default="onnxruntime", description="The same")
    max_batch_size: int = Field(default=0, description="0: the shapes have the rows in them")
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class Duration(BaseModel):
    """How often, and how long all of them together."""

    count: int = Field(description="Requests", examples=[3])
    ns: int = Field(description="Nanoseconds", examples=[1500000])


# Triton's perf_analyzer needs all of these, and the count of success in each of its parts.
class InferenceStatistics(BaseModel):
    """Where the time of the requests for a model went."""

    success: Duration = Field(description="Requests answered, all of their time")
    fail: Duration = Field(description="Requests refused or failed once the model was found")
    queue: Duration = Field(description="Waiting for their turn")
    compute_input: Duration = Field(description="Reading JSON and pictures")
    compute_infer: Duration = Field(description="In the graphs")
    compute_output: Duration = Field(description="Writing the answer")
    cache_hit: Duration = Field(description="Always 0: no answer is kept")
    cache_miss: Duration = Field(description="Always 0")


class ModelStatistics(BaseModel):
    """What a version has done since the service started, over all workers."""

    name: str = Field(description="The model", examples=["curve-mlp"])
    version: str = Field(description="Its version", examples=["1"])
    inference_count: int = Field(description="Rows inferred", examples=[30])
    execution_count: int = Field(description="Graphs run", examples=[6])
    inference_stats: InferenceStatistics


class Statistics(BaseModel):
    """What the models have done."""

    model_stats: list[ModelStatistics]


class ModelReady(BaseModel):
    """A model serves."""

    name: str = Field(description="Its name", examples=["curve-mlp"])
    ready: Literal[True] = Field(default=True, description="Always the same")


class ServerLive(BaseModel):
    """The process answers."""

    live: Literal[True] = Field(default=True, description="Always the same")


class ServerReady(BaseModel):
    """Every expected model serves."""

    ready: Literal[True] = Field(default=True, description="Always the same")


class InputTensor(BaseModel):
    """An input with its data, which is here or among the binary tensors after the JSON."""

    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=64, description="Its name", examples=["x"])
    # The model's own shape is checked against it, in words that name both.
    shape: list[Annotated[int, Field(ge=0, le=100_000_000)]] = Field(
        max_length=16, description="Its sizes", examples=[[2]]
    )
    datatype: str = Field(
        max_length=16,
        description="Type of its elements; BYTES for an encoded picture",
        examples=["FP64"],
        json_schema_extra={"enum": list(get_args(Datatype))},
    )
    parameters: Parameters = None
    data: Data | None = Field(
        default=None,
        description="Its elements row by row, flat or nested; those of BYTES in base64",
        examples=[[0.1, 3.0]],
    )


class WantedTensor(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(strict=True)

    name: str = Field(max_length=64, description="Its name", examples=["gradient"])
    parameters: Parameters = None


class InferQuery(BaseModel):
    """What to compute from what. Members that are not known here are ignored."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [EXAMPLE]})

    id: str | None = Field(
        default=None, pattern=r"^[ -~]{0,128}$", description="Comes back in the answer"
    )
    parameters: Parameters = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=64, description="The inputs")
    outputs: list[WantedTensor] | None = Field(
        default=None,
        max_length=64,
        description="The outputs wanted; all there are, if none is named",
    )


class OutputTensor(BaseModel):
    """An output with its data."""

    name: str = Field(description="Its name", examples=["gradient"])
    datatype: Datatype = Field(description="Type of its elements")
    shape: list[int] = Field(description="Its sizes", examples=[[2]])
    parameters: Parameters = None
    data: list[float] | list[str] = Field(
        default=[],
        description="Its elements row by row, unless they follow the JSON",
        examples=[[2.8, 0.7]],
    )


class Inference(BaseModel):
    """The answer."""

    model_name: str = Field(description="The model that answered", examples=["curve-mlp"])
    model_version: str = Field(description="Its version", examples=["1"])
    id: str | None = Field(default=None, description="That of the request")
    outputs: list[OutputTensor]
