"""A look at an ONNX file without ONNX: does it name data outside itself?

A tensor of a graph may say that its data lies in another file (``data_location`` EXTERNAL). Such a
file is in no manifest: its hash was not checked, and its name may lead anywhere. Only the
fields that lead to tensors are followed here; numbers are those of onnx.proto3 (onnx/onnx, IR
version 13). Published graphs carry their weights themselves.
"""

from collections.abc import Iterator
from typing import NamedTuple

EXTERNAL = 1  # a value of TensorProto.data_location
LARGEST_TAG = 2**32 - 1
MAX_DEPTH = 100  # of messages in messages; protobuf's own parsers stop there as well

# For each message the fields that lead to tensors, and what they hold.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor
_VARINT, _64_BIT, _BYTES, _32_BIT = 0, 1, 2, 5


class GraphUnreadable(Exception):
    """The bytes are not a protobuf message."""


class _Field(NamedTuple):
    number: int
    kind: int
    start: int  # of a bytes field's content
    end: int
    value: int  # of a varint


def has_external_data(content: bytes) -> bool:
    """Does a tensor anywhere in the ONNX model ``content`` have its data in another file?

    Raises GraphUnreadable where ``content`` is no protobuf message, or nested deeper than 100.
    """
    waiting = [("model", 0, len(content), 1)]
    while waiting:
        message, start, end, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise GraphUnreadable(f"it is nested deeper than {MAX_DEPTH}")
        inner = _FIELDS[message]
        for field in _fields(content, start, end):
            if message == "tensor":
                location = field.value & LARGEST_TAG  # as protobuf reads it
                located = field.number == _DATA_LOCATION and location == EXTERNAL
                if located or field.number == _EXTERNAL_DATA:
                    return True
            elif field.number in inner and field.kind == _BYTES:
                waiting.append((inner[field.number], field.start, field.end, depth + 1))
    return False


def _fields(content: bytes, position: int, end: int) -> Iterator[_Field]:
    """The fields of the message that lies in ``content[position:end]``."""
    while position < end:
        tag, position = _varint(content, position, end)
        if tag > LARGEST_TAG:  # what is beyond it some parsers drop, and see another field
            raise GraphUnreadable("it is not an ONNX graph")
        number, kind = tag >> 3, tag & 7
        start, value = position, 0
        if kind == _VARINT:
            value, position = _varint(content, position, end)
        elif kind == _BYTES:
            length, start = _varint(content, position, end)
            position = start + length
        elif kind in {_64_BIT, _32_BIT}:
            position += 8 if kind == _64_BIT else 4
        else:
            raise GraphUnreadable("it is not an ONNX graph")
        if position > end:
            raise GraphUnreadable("it ends too early")
        yield _Field(number, kind, start, position, value)


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at ``position``, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise GraphUnreadable("it ends too early")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise GraphUnreadable("it is not an ONNX graph")
