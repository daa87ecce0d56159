"""``/v2``: the Open Inference Protocol, as KServe, Triton and MLServer speak it.

https://github.com/kserve/open-inference-protocol. Every artifact is a model; the derivatives of a
curve, the saliency map of a classifier and the gradients of a loss are named outputs of it. Errors
have the member ``error`` as well, of which the protocol's clients show nothing but the text.
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Request
from pydantic import ValidationError
from starlette.responses import Response

from contract.manifest import Tensor
from service.api.calling import as_query, at, check_finite, compute, read_document
from service.api.models import Name
from service.api.pictures import decode_all
from service.api.v2_messages import (
    DATATYPES,
    ConfigTensor,
    Duration,
    IndexEntry,
    IndexQuery,
    Inference,
    InferenceStatistics,
    InferQuery,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Statistics,
    TensorMetadata,
)
from service.api.v2_tensors import (
    HEADER_LENGTH,
    Inputs,
    answer,
    read_inputs,
    refuse_shared_memory,
    split,
    top_classes,
    wanted_binary,
    wanted_classes,
)
from service.runtime.loader import Model
from service.runtime.registry import Registry
from service.runtime.session import Array
from service.settings import Settings
from service.web.body import check_json, parsing
from service.web.direct import direct
from service.web.errors import (
    Malformed,
    NotFound,
    TooLarge,
    WrongType,
    from_validation,
    problem_response,
)
from service.web.metrics import model_figures
from service.web.openapi import json_body, json_response, path_parameters, problems
from service.web.protocol_errors import Document, in_words
from service.web.request_record import current
from service.web.state import Services, services
from service.web.unpacking import read_unpacked

PREFIX = "/v2"
JSON_TYPES = {"", "application/json", "application/octet-stream"}

Version = Annotated[str, Path(max_length=20, description="The version in service")]


def error(status: int, document: Document) -> tuple[int, Document]:
    """A problem as the protocol's clients read it."""
    return status, {**document, "error": in_words(document)}


def router(settings: Settings, version: str) -> APIRouter:
    """The endpoints of the protocol."""
    routes = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol"])

    @routes.get("", summary="Describe the server")
    async def server() -> ServerMetadata:
        """Its name, version and extensions."""
        return ServerMetadata(version=version)

    @routes.get("/health/live", summary="Is the server alive?")
    async def live() -> ServerLive:
        """200 as long as the process answers."""
        return ServerLive()

    @routes.get(
        "/health/ready",
        summary="Is the server ready?",
        responses={200: {"model": ServerReady}, **problems(503)},
    )
    async def ready(request: Request) -> Response:
        """200 if every expected model serves, else 503; /health/ready says what is missing."""
        shared = services(request)
        lifecycle = shared.lifecycle
        loaded = not shared.registry.missing() and lifecycle.board.others_loaded(lifecycle.worker)
        if lifecycle.draining or not loaded:
            return problem_response(503, "Not ready: /health/ready says why")
        return json_response({"ready": True})

    @routes.post(
        "/repository/index",
        summary="List every version of every model",
        responses=problems(400, 408, 413, 422),
        openapi_extra=json_body(IndexQuery, required=False),
    )
    async def index(request: Request) -> list[IndexEntry]:
        """All versions in the artifacts folder, with their state."""
        body = await read_unpacked(request, settings.max_json_bytes)
        query = IndexQuery()
        if body.strip():
            check_json(request, body)
            try:
                query = IndexQuery.model_validate(read_document(body))
            except ValidationError as invalid:
                raise from_validation(invalid) from None
        entries = list_index(services(request).registry)
        return [entry for entry in entries if entry.state == "READY" or not query.ready]

    @routes.get("/models/stats", summary="What every model has done")
    def every_statistics(request: Request) -> Statistics:
        """Counts and nanoseconds since the start, over all workers."""
        return statistics(services(request).registry.models.values())

    for action in ("load", "unload"):

        @routes.post(f"/repository/models/{{model}}/{action}", include_in_schema=False)
        async def change(model: str) -> Response:  # noqa: ARG001
            """No request changes what serves."""
            return problem_response(
                405,
                "No request loads or unloads a model: a version that is published among the "
                "artifacts is loaded by itself, and one that is removed is unloaded",
                headers={"allow": ""},
            )

    _add_model(routes, "/models/{model}", newest, settings)
    _add_model(routes, "/models/{model}/versions/{number}", numbered, settings)
    return routes


def newest(request: Request, model: Name) -> Model:
    """The version of a model that is in service."""
    return services(request).registry.get(model)


def numbered(request: Request, model: Name, number: Version) -> Model:
    """The same, if it is that version."""
    found = newest(request, model)
    if number != str(found.manifest.version):
        raise NotFound("That version is not in service; without one the newest good one answers")
    return found


def list_index(registry: Registry) -> list[IndexEntry]:
    """Every version in the artifacts folder."""
    entries = []
    for name, numbers in sorted(registry.versions.items()):
        model = registry.models.get(name)
        for number in numbers:
            if model and model.manifest.version == number:
                entries.append(IndexEntry(name=name, version=str(number), state="READY"))
                continue
            refusal = registry.refused.get(name, {}).get(number)
            reason = refusal.reason if refusal else "another version is pinned, or goes before it"
            entries.append(
                IndexEntry(name=name, version=str(number), state="UNAVAILABLE", reason=reason)
            )
    return entries


def statistics(models: Any) -> Statistics:
    """What ``models`` have done since the service started."""
    figures = model_figures()
    found = []
    for model in models:
        name, version = model.manifest.model, str(model.manifest.version)
        known = figures.get((name, version), {})

        def count(key: str, known: dict[str, float] = known) -> int:
            return int(known.get(f"{key}_total", 0))

        def duration(requests: int, key: str, count: Callable[[str], int] = count) -> Duration:
            return Duration(count=requests, ns=1000 * count(key))

        requests = count("nv_inference_request_success")
        failed = count("nv_inference_request_failure")
        found.append(
            ModelStatistics(
                name=name,
                version=version,
                inference_count=count("nv_inference_count"),
                execution_count=count("nv_inference_exec_count"),
                inference_stats=InferenceStatistics(
                    success=duration(requests, "nv_inference_request_duration_us"),
                    fail=duration(failed, "gradserve_inference_failure_us"),
                    queue=duration(requests, "nv_inference_queue_duration_us"),
                    compute_input=duration(requests, "nv_inference_compute_input_duration_us"),
                    compute_infer=duration(requests, "nv_inference_compute_infer_duration_us"),
                    compute_output=duration(requests, "nv_inference_compute_output_duration_us"),
                    cache_hit=Duration(count=0, ns=0),
                    cache_miss=Duration(count=0, ns=0),
                ),
            )
        )
    return Statistics(model_stats=found)


def _add_model(
    routes: APIRouter, path: str, find: Callable[..., Model], settings: Settings
) -> None:
    """The endpoints of a model, or of a version of one, as ``find`` has it."""
    found_there = Depends(find)
    absent = problems(404, 422, 503)

    @routes.get(path, summary="Describe a model", responses=absent)
    async def metadata(found: Model = found_there) -> ModelMetadata:
        """Inputs and outputs of all its functions."""
        tensors = found.signature
        return ModelMetadata(
            name=found.manifest.model,
            versions=[str(found.manifest.version)],
            inputs=[_metadata(tensor) for tensor in tensors.inputs.values()],
            outputs=[_metadata(tensor) for tensor in tensors.outputs.values()],
        )

    @routes.get(f"{path}/ready", summary="Is a model ready?", responses=absent)
    async def ready(found: Model = found_there) -> ModelReady:
        """200 if it serves."""
        return ModelReady(name=found.manifest.model)

    @routes.get(f"{path}/config", summary="Configure a client for a model", responses=absent)
    async def config(found: Model = found_there) -> ModelConfig:
        """Inputs and outputs as Triton's configuration has them."""
        tensors = found.signature
        return ModelConfig(
            name=found.manifest.model,
            input=[_config(tensor) for tensor in tensors.inputs.values()],
            output=[_config(tensor) for tensor in tensors.outputs.values()],
        )

    @routes.get(f"{path}/stats", summary="What a model has done", responses=absent)
    def stats(found: Model = found_there) -> Statistics:
        """Counts and nanoseconds since the start, over all workers."""
        return statistics([found])

    # Binary tensors are described in words: with two types of content for a body, generated clients
    # don't compile (openapi-python-client 0.29) or know no type of the answer (openapi-typescript).
    body = {**path_parameters(path), **json_body(InferQuery)}

    @routes.post(
        f"{path}/infer",
        summary="Run a model",
        responses={
            200: {"model": Inference},
            **problems(400, 404, 408, 413, 415, 422, 429, 503),
        },
        openapi_extra=body,
    )
    @direct
    async def run(request: Request) -> Response:
        """The outputs asked for, derivatives among them, from named tensors.

        As JSON, or as binary tensors after the JSON, whose length the header
        Inference-Header-Content-Length then gives.
        """
        found = find(request, **request.path_params)
        record = current.get()
        if record is not None:  # what is refused from here on counts as failed, of this model
            record.model, record.version = found.manifest.model, found.manifest.version
        shared = services(request)
        query, inputs = await _read(request, found, settings)
        wanted = [tensor.name for tensor in query.outputs or []]
        for index, name in enumerate(wanted):
            if name not in found.signature.outputs:
                names = ", ".join(found.signature.outputs)
                raise at(
                    "#/outputs", [index, "name"], f"there is no such output; there are: {names}"
                )
        for index, output in enumerate(query.outputs or []):
            refuse_shared_memory(output.parameters, f"#/outputs/{index}/parameters")
        _refuse_intervals(query, found)
        classes = wanted_classes(query, found)
        if inputs.pictures:
            await _decode(found, inputs, shared)
        outputs = await compute(found, inputs.arrays, wanted, shared, inputs.pointers)
        binary = wanted_binary(query, list(outputs))
        check_finite({name: array for name, array in outputs.items() if name not in binary})
        head: dict[str, Any] = {
            "model_name": found.manifest.model,
            "model_version": str(found.manifest.version),
        }
        if query.id is not None:
            head["id"] = query.id
        given: dict[str, Array | list[list[str]]] = dict(outputs)
        if found.classifier is not None:
            for name, count in classes.items():
                given[name] = top_classes(outputs[name], found.classifier.classes, count)
        return answer(head, given, binary)


async def _read(request: Request, found: Model, settings: Settings) -> tuple[InferQuery, Inputs]:
    """What is asked, and from what. Raises Malformed, WrongType, TooLarge or Invalid."""
    headers = request.headers
    length = headers.get(HEADER_LENGTH)
    if len(headers.getlist(HEADER_LENGTH)) > 1:
        raise Malformed(f"The header {HEADER_LENGTH} is given twice; give it once")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in JSON_TYPES:
        raise WrongType("Send JSON (application/json), or binary tensors after it")
    limit = settings.max_json_bytes if length is None else settings.max_upload_bytes
    body = await read_unpacked(request, limit)
    if not body:
        raise Malformed("The body is empty; send a JSON object")
    document, binary = split(body, length)
    if len(document) > settings.max_json_bytes:
        raise TooLarge(f"The JSON is over the limit of {settings.max_json_bytes} bytes")
    text = body if length is None else bytes(document)
    check_json(request, text)
    async with parsing(request, text):
        query = await as_query(text, InferQuery)
        inputs = read_inputs(query, binary, found, settings.max_images)
        for tensor in query.inputs:
            tensor.data = None  # the arrays take a tenth of the memory
        return query, inputs


def _refuse_intervals(query: InferQuery, found: Model) -> None:
    """Raise Invalid for what /predict and /gradient take, and would be passed over here."""
    for name in ("uncertainty", "level"):
        if found.curve is not None and name in (query.parameters or {}):
            names = ", ".join(found.curve.deviations.values())
            instead = f"ask for the outputs {names}" if names else "this one has no outputs for it"
            detail = f"how sure a curve is comes as standard errors here: {instead}"
            raise at("#/parameters", [name], detail)


async def _decode(found: Model, inputs: Inputs, shared: Services) -> None:
    """Turn encoded pictures into arrays. Raises Invalid, TooLarge, WrongType or QueueFull."""
    _, classifier = shared.registry.classifier(found.manifest.model)
    for name, files in inputs.pictures.items():
        with shared.queue.place(len(files)):
            pictures = await decode_all(
                list(files), classifier, shared, f"{inputs.pointers[name]}/data"
            )
        inputs.arrays[name] = np.stack([picture.pixels for picture in pictures])


def _metadata(tensor: Tensor) -> TensorMetadata:
    datatype: Any = DATATYPES[tensor.dtype]
    return TensorMetadata(name=tensor.name, datatype=datatype, shape=_sizes(tensor))


def _config(tensor: Tensor) -> ConfigTensor:
    return ConfigTensor(
        name=tensor.name, data_type=f"TYPE_{DATATYPES[tensor.dtype]}", dims=_sizes(tensor)
    )


def _sizes(tensor: Tensor) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape]
