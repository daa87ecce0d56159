"""Artifacts that lie: each is published as a good one would be, with every hash right."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.tiny_artifacts import publish_curve


def external(location: str) -> bytes:
    """y = x + w, where w is eight bytes of the file at ``location``."""
    weights = TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[1])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        weights.external_data.add(key=key, value=value)
    return _model([helper.make_node("MatMul", ["r", "w"], ["y"])], weights)


def hidden_external(location: str) -> bytes:
    """The same in a constant, in a branch, in a function: wherever a tensor can stand."""
    weights = TensorProto(data_type=TensorProto.DOUBLE, dims=[1])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    out = helper.make_tensor_value_info("v", TensorProto.DOUBLE, [1])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value=weights)], "branch", [], [out]
    )
    condition = numpy_helper.from_array(np.array(True), "c")
    nodes = [
        helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    return _model(nodes, condition)


def _model(nodes: list[Any], *constants: TensorProto) -> bytes:
    shape = numpy_helper.from_array(np.array([-1, 1]), "shape")
    reshape = helper.make_node("Reshape", ["x", "shape"], ["r"])
    info = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["n"]) for n in "xy"]
    body = helper.make_graph([reshape, *nodes], "lies", info[:1], info[1:], [shape, *constants])
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    content: bytes = made.SerializeToString()
    return content


def endless() -> bytes:
    """y = x, after a loop of 2⁶² rounds."""
    loop_inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("a", TensorProto.DOUBLE, ["n"]),
    ]
    loop_outputs = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("b", TensorProto.DOUBLE, ["n"]),
    ]
    rounds = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node("Identity", ["a"], ["b"]),
    ]
    body = helper.make_graph(rounds, "round", loop_inputs, loop_outputs)
    outer = helper.make_graph(
        [helper.make_node("Loop", ["trips", "true", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n"])],
        [
            numpy_helper.from_array(np.array(2**62), "trips"),
            numpy_helper.from_array(np.array(True), "true"),
        ],
    )
    made = helper.make_model(outer, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    content: bytes = made.SerializeToString()
    return content


def bomb(size: int) -> bytes:
    """An .npz of a few KB whose array of zeros unpacks to ``size`` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (size // 8,)}
    )
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("value.x.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        zeros = bytes(1 << 20)
        for _ in range(size >> 20):
            member.write(zeros)
    return stream.getvalue()


def without_rows() -> bytes:
    """Samples of no rows."""
    stream = io.BytesIO()
    np.savez(stream, **{"value.x": np.zeros(0), "value.y": np.zeros(0)})
    return stream.getvalue()


def publish(root: Path, model: str = "curve-mlp", **files: bytes) -> Path:
    """A curve some of whose files are others; its hashes are right."""
    return publish_curve(root, model, **files).folder
