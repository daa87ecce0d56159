"""The tensors of the Open Inference Protocol: from JSON or binary to arrays, and back.

Binary tensors follow the JSON in the body, one after the other, little-endian; the header
``Inference-Header-Content-Length`` says how long the JSON is. An element of BYTES has its length
before it, in four bytes. https://github.com/triton-inference-server/server/blob/main/docs/protocol/
extension_binary_data.md and extension_classification.md
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from starlette.responses import Response

from contract.manifest import Tensor, shape_text
from service.api.calling import Unreadable, at, read_array
from service.api.v2_messages import DATATYPES, DTYPES, InferQuery, InputTensor
from service.runtime.loader import Model
from service.runtime.session import Array
from service.web.errors import Invalid, Malformed
from service.web.openapi import as_json, json_response
from service.web.request_record import Stage

HEADER_LENGTH = "inference-header-content-length"
REFUSED = {
    "FP16": "FP16 is not taken here",
    "BF16": "BF16 is not taken here",
    "BOOL": "BOOL is not taken here",
}


@dataclass(frozen=True)
class Inputs:
    """The arrays by name, and the encoded pictures of inputs sent as BYTES."""

    arrays: dict[str, Array]
    pictures: dict[str, list[bytes]]
    pointers: dict[str, str]


def split(body: bytes | bytearray, header: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and the binary tensors after it. Raises Malformed."""
    view = memoryview(body)
    if header is None:
        return view, view[:0]
    if not (header.isascii() and header.isdigit() and len(header) < 20) or int(header) > len(body):
        raise Malformed(
            "Inference-Header-Content-Length should be the length of the JSON, in bytes, and not "
            "over that of the body"
        )
    return view[: int(header)], view[int(header) :]


def read_inputs(query: InferQuery, binary: memoryview, model: Model, max_pictures: int) -> Inputs:
    """The inputs of a query as arrays of the model's types and shapes. Raises Invalid, which is
    also for more than ``max_pictures`` encoded pictures.
    """
    found = Inputs({}, {}, {})
    start = 0
    for index, given in enumerate(query.inputs):
        pointer = f"#/inputs/{index}"
        tensor = model.signature.inputs.get(given.name)
        if tensor is None:
            names = ", ".join(model.signature.inputs)
            raise at(pointer, ["name"], f"there is no such input; there are: {names}")
        if given.name in found.pointers:
            raise at(pointer, ["name"], "this input is given twice; give each once")
        found.pointers[given.name] = pointer
        refuse_shared_memory(given.parameters, f"{pointer}/parameters")
        size = (given.parameters or {}).get("binary_data_size")
        content: memoryview | None = None
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(binary) - start:
                place = ["parameters", "binary_data_size"]
                detail = "it should be an integer, and the body have as many bytes after its JSON"
                raise at(pointer, place, detail)
            if given.data is not None:
                raise at(pointer, ["data"], "send it here or after the JSON, not both")
            content = binary[start : start + size]
            start += size
        elif given.data is None:
            raise at(pointer, ["data"], f"{given.name} has no data, here or after the JSON")
        classifier = model.classifier
        if given.datatype == "BYTES" and classifier and given.name == classifier.image:
            found.pictures[given.name] = _pictures(given, content, pointer, max_pictures)
            continue
        _check_datatype(given, tensor, pointer)
        if content is None:
            array = _from_json(given, pointer)
        else:
            array = _from_binary(given, content, pointer)
        if len(tensor.shape) == 1 and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]  # as clients send a column
        found.arrays[given.name] = array
    if start != len(binary):
        raise Invalid("There are bytes after the JSON that no input's binary_data_size counts")
    return found


def refuse_shared_memory(parameters: dict[str, Any] | None, pointer: str) -> None:
    """Raise Invalid where a tensor is to be in memory that the client shares.

    If it were ignored, the client would read from that memory what was there before.
    """
    if (parameters or {}).get("shared_memory_region") is not None:
        detail = "shared memory is neither read nor written here: send tensors with the request"
        raise at(pointer, ["shared_memory_region"], detail)


def _check_datatype(given: InputTensor, tensor: Tensor, pointer: str) -> None:
    expected = DATATYPES[tensor.dtype]
    if given.datatype != expected:
        refused = REFUSED.get(given.datatype)
        reason = f"{refused}; " if refused else ""
        raise at(
            pointer,
            ["datatype"],
            f"{reason}the datatype of {tensor.name} should be {expected}, its shape "
            f"{shape_text(tensor.shape)}",
        )


def _from_binary(given: InputTensor, content: memoryview, pointer: str) -> Array:
    dtype = DTYPES[given.datatype].newbyteorder("<")
    expected = prod(given.shape) * dtype.itemsize
    if len(content) != expected:
        place = ["parameters", "binary_data_size"]
        raise at(pointer, place, f"its shape and datatype make {expected} bytes")
    array = np.frombuffer(content, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(given.shape)


def _from_json(given: InputTensor, pointer: str) -> Array:
    try:
        array = read_array(given.data, DTYPES[given.datatype])
    except Unreadable as error:
        raise at(pointer, ["data", *error.where], error.detail) from None
    given.data = None  # its array takes a tenth of the memory
    if array.size != prod(given.shape):
        raise at(pointer, ["data"], "it should have as many elements as shape says")
    return array.reshape(given.shape)


def _from_base64(text: Any, pointer: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise at(pointer, (), "it should be a picture's bytes in base64") from None


def _pictures(
    given: InputTensor, content: memoryview | None, pointer: str, max_pictures: int
) -> list[bytes]:
    """The elements of a BYTES tensor, none looked at beyond what its shape says. Raises Invalid."""
    count = prod(given.shape)
    if count == 0:
        raise at(pointer, ["shape"], "there should be a picture at least")
    if count > max_pictures:
        raise at(pointer, ["shape"], f"at most {max_pictures} images can be sent at once")
    wrong_count = at(pointer, ["shape"], "there should be as many elements as shape says")
    if content is None:
        texts = given.data or []
        given.data = None
        if len(texts) != count:
            raise wrong_count
        return [_from_base64(text, f"{pointer}/data/{index}") for index, text in enumerate(texts)]
    found: list[bytes] = []
    start = 0
    while start < len(content):
        if len(found) == count:
            raise wrong_count
        if len(content) - start < 4:
            raise at(pointer, (), "the last element's length has fewer than four bytes")
        (length,) = struct.unpack_from("<I", content, start)
        start += 4
        if length > len(content) - start:
            detail = (
                "an element is longer than the bytes that are there; before each goes its length, "
                "in four bytes, little-endian"
            )
            raise at(pointer, (), detail)
        found.append(bytes(content[start : start + length]))
        start += length
    if len(found) != count:
        raise wrong_count
    return found


def wanted_binary(query: InferQuery, names: Sequence[str]) -> set[str]:
    """The outputs that are wanted as binary tensors. Raises Invalid."""
    every = _flag(query.parameters, "binary_data_output", "#/parameters")
    asked = {
        tensor.name: _flag(tensor.parameters, "binary_data", f"#/outputs/{index}/parameters")
        for index, tensor in enumerate(query.outputs or [])
    }
    return {name for name in names if (every if asked.get(name) is None else asked[name])}


def _flag(parameters: dict[str, Any] | None, name: str, pointer: str) -> bool | None:
    value = (parameters or {}).get(name)
    if value is not None and not isinstance(value, bool):
        raise at(pointer, [name], "it should be true or false")
    return value


def wanted_classes(query: InferQuery, model: Model) -> dict[str, int]:
    """How many of the likeliest classes are wanted of which outputs. Raises Invalid."""
    found = {}
    for index, tensor in enumerate(query.outputs or []):
        count = (tensor.parameters or {}).get("classification")
        if count is None or (type(count) is int and count == 0):
            continue
        pointer = f"#/outputs/{index}/parameters"
        if type(count) is not int or count < 0:
            raise at(pointer, ["classification"], "it should be a number of classes")
        classifier = model.classifier
        if classifier is None or tensor.name != classifier.probabilities:
            raise at(
                pointer, ["classification"], "only the probabilities of a classifier have classes"
            )
        found[tensor.name] = count
    return found


def top_classes(probabilities: Array, classes: Sequence[str], count: int) -> list[list[str]]:
    """The ``count`` likeliest of each row, as ``probability:index:label``."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :count]
    return [
        [f"{row[i]:f}:{i}:{classes[i]}" for i in likeliest.tolist()]
        for row, likeliest in zip(probabilities, order, strict=True)
    ]


def answer(
    head: dict[str, Any], outputs: dict[str, Array | list[list[str]]], binary: set[str]
) -> Response:
    """The answer of an inference: JSON, and after it the tensors of ``binary``."""
    tensors, contents = [], []
    for name, found in outputs.items():
        if isinstance(found, list):
            datatype, shape = "BYTES", [len(found), len(found[0])]
        else:
            datatype, shape = DATATYPES[str(found.dtype)], list(found.shape)
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if name in binary:
            content = _bytes(found)
            contents.append(content)
            tensor["parameters"] = {"binary_data_size": len(content)}
        elif isinstance(found, list):
            tensor["data"] = [text for row in found for text in row]
        else:
            tensor["data"] = found.ravel()
        tensors.append(tensor)
    document = {**head, "outputs": tensors}
    if not binary:
        return json_response(document)
    with Stage("write"):
        start = as_json(document)
        content = b"".join([start, *contents])
    return Response(
        content,
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(start))},
    )


def _bytes(found: Array | list[list[str]]) -> bytes:
    if isinstance(found, list):
        texts = [text.encode() for row in found for text in row]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return found.astype(found.dtype.newbyteorder("<"), copy=False).tobytes()
