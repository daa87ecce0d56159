"""What JSON allows and forbids, and values that are no numbers, for all that reads it."""

import json
from typing import Any

from tests.hostile.wire import CANARY

MIB = 1024 * 1024
DEEP = 100_000


def x(text: str) -> bytes:
    """A question to /predict with x as it stands there."""
    return b'{"x": ' + text.encode() + b"}"


# Bytes that no endpoint can take for a good question: any 4xx but never anything else.
MALFORMED: dict[str, bytes] = {
    "nothing but space": b" " * 1000,
    "text": CANARY.encode(),
    "an open object": b"{",
    "an open string": b'{"' + CANARY.encode(),
    "deep arrays": b"[" * DEEP + b"]" * DEEP,
    "deep arrays, open": b"[" * DEEP,
    "deep objects": b'{"x":' * DEEP + b"1" + b"}" * DEEP,
    "deep in x": x("[" * DEEP + "1" + "]" * DEEP),
    "a trailing comma": b'{"x": [1,]}',
    "a second document": b'{"x": 1} {"x": 2}',
    "rubbish after the end": b'{"x": 1}' + CANARY.encode(),
    "a comment": b'{"x": 1 /* ' + CANARY.encode() + b" */}",
    "single quotes": b"{'x': 1}",
    "a leading zero": x("01"),
    "a plus": x("+1"),
    "hexadecimal": x("0x10"),
    "a bare point": x(".5"),
    "only a minus": x("-"),
    "an exponent without digits": x("1e"),
    "a control character in a string": b'{"x": 1, "model": "a\x01b"}',
    "a NUL": b'{"x": 1\x00}',
    "a byte order mark": b'\xef\xbb\xbf{"x": 1}',
    "UTF-16": '{"x": 1}'.encode("utf-16"),
    "UTF-16 without its mark": '{"x": 1}'.encode("utf-16-le"),
    "UTF-32": '{"x": 1}'.encode("utf-32"),
    "Latin-1": b'{"x": 1, "model": "\xe9"}',
    "an overlong slash": b'{"x": 1, "model": "\xc0\xaf"}',
    "a surrogate as bytes": b'{"x": 1, "model": "\xed\xa0\x80"}',
    "half an escape": b'{"x": 1, "model": "\\u12"}',
    "a wrong escape": b'{"x": 1, "model": "\\q"}',
}

# JSON, but no question: not an object, or with fields that there aren't.
MEANINGLESS: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a string": json.dumps(CANARY).encode(),
    "an array": b"[1, 2, 3]",
    "an empty object": b"{}",
    "an unknown field": json.dumps({"x": 1, CANARY: 2}).encode(),
    "ten thousand unknown fields": json.dumps({f"{CANARY}{i}": i for i in range(10_000)}).encode(),
    "a name of a mebibyte": json.dumps({"x": 1, CANARY * (MIB // 9): 2}).encode(),
    "a lone surrogate as a name": b'{"x": 1, "\\ud800' + CANARY.encode() + b'": 1}',
    **{
        name: json.dumps({"x": 1, name: {"x": 1}}).encode()
        for name in ("__class__", "__proto__", "__dict__", "__init__", "constructor", "x\u0000", "")
    },
}

# x as /predict is sent it, and the statuses that are right.
NUMBERS: dict[str, tuple[str, set[int]]] = {
    "minus zero": ("-0.0", {200}),
    "the smallest float": ("5e-324", {200}),
    "smaller than that": ("1e-400", {200}),
    "an integer": ("7", {200}),
    "many digits": ("0." + "3" * 10_000, {200}),
    "over the range": ("1e400", {422}),
    "under the range": ("-1e400", {422}),
    "its cube is over the range": ("1e308", {422}),
    "NaN": ("NaN", {400, 422}),
    "Infinity": ("Infinity", {400, 422}),
    "-Infinity": ("-Infinity", {400, 422}),
    "ten to the 400 in digits": ("1" + "0" * 400, {400, 422}),
    "a mebibyte of digits": ("1" * MIB, {400, 422}),
    "an exponent of a mebibyte": ("1e" + "9" * MIB, {400, 422}),
    "true": ("true", {422}),
    "null": ("null", {422}),
    "a string": ('"3"', {422}),
    "NaN as a string": ('"NaN"', {422}),
    "text": (f'"{CANARY}"', {422}),
    "an object": (f'{{"{CANARY}": 1}}', {422}),
    "none": ("[]", {422}),
    "a list in a list": ("[[1]]", {422}),
    "true in a list": ("[1, true]", {422}),
    "null in a list": ("[1, null]", {422}),
    "a string in a list": (f'[1, "{CANARY}"]', {422}),
    "NaN in a list": ("[1, NaN]", {400, 422}),
    "over the range in a list": ("[1, 1e400]", {422}),
    "as many as may be": (json.dumps([0.5] * 100_000), {200}),
    "one too many": (json.dumps([0.5] * 100_001), {422}),
    "a hundred thousand bad ones": (json.dumps([CANARY] * 100_000), {422}),
}

# Whole bodies for /predict.
BODIES: dict[str, tuple[bytes, set[int]]] = {
    "space within the limit": (b" " * (3 * MIB) + x("1"), {200}),
    "10 MB of space": (b" " * 10_000_000 + x("1"), {413}),
    "the same field twice": (b'{"x": 1, "x": 2}', {200, 422}),
    "a bad field, then a good one": (b'{"x": null, "x": 2}', {200, 422}),
    "an unknown model": (json.dumps({"x": 1, "model": CANARY}).encode(), {404}),
    "a path as a model": (json.dumps({"x": 1, "model": f"../{CANARY}"}).encode(), {404}),
    "an address as a model": (
        json.dumps({"x": 1, "model": f"http://127.0.0.1/{CANARY}"}).encode(),
        {404},
    ),
    "a model of another kind": (b'{"x": 1, "model": "cifar-improved"}', {404}),
    "a NUL in the model": (b'{"x": 1, "model": "curve-mlp\\u0000"}', {404, 422}),
    "a lone surrogate": (b'{"x": 1, "model": "\\ud800"}', {400, 404, 422}),
    "a model of a mebibyte": (json.dumps({"x": 1, "model": CANARY * (MIB // 9)}).encode(), {422}),
    "a model that is a number": (b'{"x": 1, "model": 1}', {422}),
    "a model that is nothing": (b'{"x": 1, "model": null}', {422}),
    "an escaped name": (b'{"\\u0078": 2}', {200}),
}

ORDERS: list[tuple[str, set[int]]] = [
    ("1", {200}),
    ("3", {200}),
    ("0", {422}),
    ("4", {422}),
    ("-1", {422}),
    ("1.5", {422}),
    ("true", {422}),
    ('"1"', {422}),
    ("null", {422}),
    ("1" + "0" * 400, {422}),
    ("NaN", {400, 422}),
    ("[1]", {422}),
]

CONTENT_TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json-patch+json",
    "multipart/form-data",
    "image/png",
    "json",
    "",
    ";" * 1000,
    "application/" + CANARY,
]


def w10_changed(field: str, value: Any) -> bytes:
    """A question to /w10-gradient with one field replaced."""
    question = {
        "input": [[0.5] * 4] * 4,
        "kernel": [[0.5] * 3] * 3,
        "weights": [0.5] * 4,
        "label": 1.0,
    }
    return json.dumps(question | {field: value}).encode()


W10: dict[str, bytes] = {
    "rows of unequal length": w10_changed("input", [[1] * 4, [1] * 3, [1] * 4, [1] * 4]),
    "too many rows": w10_changed("kernel", [[1] * 3] * 4),
    "no rows": w10_changed("kernel", []),
    "a flat kernel": w10_changed("kernel", [1] * 9),
    "too large": w10_changed("label", 1e308),
    "beyond the range": w10_changed("label", float("inf")),
    "not a number": w10_changed("weights", [float("nan")] * 4),
    "true": w10_changed("label", True),
    "text": w10_changed("label", CANARY),
    "an unknown naming": w10_changed("naming", CANARY),
    "no naming": w10_changed("naming", None),
}


def v2_changed(**changes: Any) -> bytes:
    """A question to /v2 with its one tensor changed."""
    tensor = {"name": "x", "shape": [2], "datatype": "FP64", "data": [0.1, 3.0]}
    return json.dumps({"inputs": [tensor | changes]}).encode()


V2: dict[str, bytes] = {
    "no inputs": b'{"inputs": []}',
    "the same input twice": json.dumps(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [n]} for n in (1, 2)]}
    ).encode(),
    "a shape that lies": v2_changed(shape=[3]),
    "a huge shape": v2_changed(shape=[10_000_000] * 4),
    "a shape over any integer": v2_changed(shape=[10**30]),
    "a negative shape": v2_changed(shape=[-1, -2]),
    "a shape of nothing": v2_changed(shape=[0], data=[]),
    "no shape": v2_changed(shape=[]),
    "another rank": v2_changed(shape=[1, 2]),
    "ragged rows": v2_changed(shape=[1, 2], data=[[1], [1, 2]]),
    "many levels": v2_changed(shape=[1], data=json.loads("[" * 90 + "1" + "]" * 90)),
    "another datatype": v2_changed(datatype="BYTES"),
    "text": v2_changed(data=[CANARY, CANARY]),
    "true": v2_changed(data=[True, False]),
    "an unknown input": v2_changed(name=CANARY),
    "an unknown output": json.dumps(
        {**json.loads(v2_changed()), "outputs": [{"name": CANARY}]}
    ).encode(),
    "an id that breaks lines": json.dumps(
        {**json.loads(v2_changed()), "id": f"a\r\n{CANARY}: b"}
    ).encode(),
    "not finite": v2_changed(data=[float("nan"), float("inf")]),
    "pixels out of range": v2_changed(datatype="UINT8", data=[-1, 256]),
}
