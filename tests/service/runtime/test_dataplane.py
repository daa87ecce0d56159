"""The one way to a model: what runs, in how many pieces, and what is refused before anything runs.

Models here are small graphs, loaded as published ones are, of signatures that the shipped ones
don't have: parameters beside the rows, sums over the rows, several tangents, every type.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract import signatures
from contract.manifest import Agreement, Function, Graph
from service.runtime.dataplane import infer
from service.runtime.errors import BadTensor, QueueFull, TooManyNumbers
from service.runtime.loader import LoadedFunction, Model, load
from service.runtime.queue import Queue
from service.runtime.session import Session
from service.settings import Settings
from tests.tiny_artifacts import graph, node, publish_classifier, publish_curve, tensor

X, THETA = tensor("x", "float64", "n", 2), tensor("theta", "float64", 2)
EXACT = Agreement(maximum_absolute_error=0, absolute_tolerance=0, relative_tolerance=0)


class Counted(Session):
    """A session that notes how many rows each of its runs took."""

    def run(self, *arrays: Any) -> Any:
        self.rows = [*getattr(self, "rows", []), [a.shape[0] if a.ndim else 0 for a in arrays]]
        return super().run(*arrays)


class Named:
    """As much of an artifact as the data plane looks at."""

    def __init__(self, functions: dict[str, Function]) -> None:
        self.manifest = self
        self.functions = functions
        self.model, self.version = "named", 1


def model(functions: dict[str, tuple[list[Any], tuple[Any, ...], tuple[Any, ...]]]) -> Model:
    """A model of ``name: (nodes, inputs, outputs)``, not measured: every run is quick."""
    loaded, known = {}, {}
    for name, (nodes, inputs, outputs) in functions.items():
        reference = Graph(file=f"{name}.onnx", precision="fp64", agreement=EXACT)
        known[name] = Function(inputs=inputs, outputs=outputs, graph=reference)
        content = graph(nodes, inputs, outputs)
        session = Counted(content, known[name], ("CPUExecutionProvider",), 1)
        loaded[name] = LoadedFunction(known[name], session, reference)
    return Model(Named(known), loaded, max_numbers=100_000)  # type: ignore[arg-type]


def ask(found: Model, inputs: dict[str, Any], *wanted: str) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        queue = Queue(4, 1)
        try:
            return await infer(found, inputs, wanted, queue)
        finally:
            queue.graphs.close()

    return asyncio.run(run())


LINEAR = model(
    {
        "value": ([node("MatMul", "x theta", "y")], (X, THETA), (tensor("y", "float64", "n"),)),
        # Sums over the rows, as the gradient of a loss by its parameters does.
        "vjp_theta": (
            [node("Gemm", "x cotangent_y", "vjp_theta", transA=1)],
            (X, tensor("cotangent_y", "float64", "n", 1)),
            (tensor("vjp_theta", "float64", 2, 1),),
        ),
        # k tangents for each row: [n, k, 2] times [2].
        "jvp": (
            [node("MatMul", "tangent_x theta", "jvp_y")],
            (tensor("tangent_x", "float64", "n", "k", 2), THETA),
            (tensor("jvp_y", "float64", "n", "k"),),
        ),
        "sum": (
            [node("ReduceSum", "z", "s", keepdims=0)],
            (tensor("z", "float64", "m"),),
            (tensor("s", "float64"),),
        ),
    }
)


def test_rows_are_split_and_parameters_go_whole_into_each_run() -> None:
    x, theta = np.random.default_rng(0).normal(size=(9000, 2)), np.array([2.0, -1.0])
    session = LINEAR.functions["value"].session
    session.rows = []  # type: ignore[attr-defined]
    found = ask(LINEAR, {"x": x, "theta": theta}, "y")
    assert np.array_equal(found["y"], x @ theta)
    assert [rows for rows, _ in session.rows] == [2048, 2048, 2048, 2048, 808]  # type: ignore[attr-defined]
    assert {parameters for _, parameters in session.rows} == {2}  # type: ignore[attr-defined]


def test_a_function_that_sums_over_the_rows_runs_once_with_all_of_them() -> None:
    x = np.ones((9000, 2))
    session = LINEAR.functions["vjp_theta"].session
    session.rows = []  # type: ignore[attr-defined]
    found = ask(LINEAR, {"x": x, "cotangent_y": np.ones((9000, 1))}, "vjp_theta")
    assert found["vjp_theta"].tolist() == [[9000.0], [9000.0]]
    assert session.rows == [[9000, 9000]]  # type: ignore[attr-defined]


def test_many_tangents_make_fewer_rows_a_run() -> None:
    session = LINEAR.functions["jvp"].session
    session.rows = []  # type: ignore[attr-defined]
    tangents = np.ones((100, 500, 2))
    found = ask(LINEAR, {"tangent_x": tangents, "theta": np.array([2.0, 1.0])}, "jvp_y")
    assert found["jvp_y"].shape == (100, 500) and (found["jvp_y"] == 3).all()
    assert {rows for rows, _ in session.rows} == {16, 4}  # type: ignore[attr-defined]  # 25,000 // 1,500


def test_without_any_row_dimension_it_runs_as_it_is() -> None:
    assert ask(LINEAR, {"z": np.arange(5.0)}, "s")["s"] == 10.0


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_every_type_goes_through_as_it_is(dtype) -> None:
    a, b = tensor("a", dtype, "n"), tensor("b", dtype, "n")
    same = model({"value": ([node("Identity", "a", "b")], (a,), (b,))})
    given = np.arange(3000).astype(dtype)
    found = ask(same, {"a": given}, "b")["b"]
    assert found.dtype == np.dtype(dtype) and np.array_equal(found, given)


def test_the_size_of_an_answer_is_refused_before_it_is_computed() -> None:
    session = LINEAR.functions["jvp"].session
    session.rows = []  # type: ignore[attr-defined]
    tangents = np.broadcast_to(np.float64(1), (200, 501, 2))
    with pytest.raises(TooManyNumbers, match="100200 numbers; ask for at most 100000"):
        ask(LINEAR, {"tangent_x": tangents, "theta": np.ones(2)}, "jvp_y")
    with pytest.raises(TooManyNumbers):
        ask(LINEAR, {"x": np.ones((100_001, 2)), "theta": np.ones(2)}, "y")
    assert session.rows == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("inputs", "wanted", "blamed", "words"),
    [
        ({"q": np.ones(1)}, ["y"], None, "no such input; there are: x, theta"),
        ({"x": np.ones((1, 2))}, ["q"], None, "no such output; there are: y, "),
        ({"x": np.ones((1, 2))}, ["y"], "theta", "y needs this input as well"),
        ({"x": np.ones((1, 2), np.float32), "theta": np.ones(2)}, ["y"], "x", "should be float64"),
        ({"x": np.ones(2), "theta": np.ones(2)}, ["y"], "x", "shape should be [n, 2]"),
        ({"x": np.ones((1, 3)), "theta": np.ones(2)}, ["y"], "x", "[n, 2]"),
        ({"x": np.ones((0, 2)), "theta": np.ones(2)}, ["y"], "x", "none of it 0"),
        (
            {"x": np.ones((2, 2)), "cotangent_y": np.ones((3, 1))},
            [],
            "cotangent_y",
            "[n, 1], with n = 2",
        ),
        ({"theta": np.ones(2)}, [], None, "suffice for no output"),
    ],
)
def test_what_does_not_fit_is_said_with_the_name(inputs, wanted, blamed, words) -> None:
    with pytest.raises(BadTensor) as error:
        ask(LINEAR, inputs, *wanted)
    assert error.value.tensor == blamed and words in error.value.detail


def test_a_graph_that_fails_on_some_input_blames_the_input() -> None:
    index, row = tensor("index", "int64", "n"), tensor("row", "int64", "n")
    table = tensor("table", "int64", "m")
    pick = model({"value": ([node("Gather", "table index", "row")], (table, index), (row,))})
    assert ask(pick, {"table": np.arange(3), "index": np.array([2])})["row"] == [2]
    with pytest.raises(BadTensor, match="can't compute with these inputs"):
        ask(pick, {"table": np.arange(3), "index": np.array([7])})


def test_as_few_functions_run_as_give_what_is_wanted(tmp_path) -> None:
    curve = load(publish_curve(tmp_path).folder, Settings())
    assert list(ask(curve, {"x": np.array([2.0])})) == ["y", "gradient", "gradient2", "gradient3"]
    assert ask(curve, {"x": np.array([2.0])}, "gradient", "y") == {"y": [4.0], "gradient": [10.0]}
    assert list(curve.plans[("x",), ("gradient", "y")].outputs) == ["y", "gradient"]
    image = load(publish_classifier(tmp_path).folder, Settings())
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(BadTensor, match="from 0 to 2"):
        ask(image, {"image": pixels, "class": np.array([3])}, "saliency")


def test_a_model_is_found_by_its_signature() -> None:
    """Whatever its kind says: float64 [n] in and out, and derivatives named as any author likes."""
    x, f = tensor("t", "float64", "n"), tensor("f", "float64", "n")
    slope = tensor("gradient_f_t", "float64", "n")
    found = model(
        {
            "value": ([node("Neg", "t", "f")], (x,), (f,)),
            "gradient": ([node("Identity", "t", "gradient_f_t")], (x,), (slope,)),
        }
    )
    curve = found.curve
    assert curve is not None and (curve.x, curve.y) == ("t", "f")
    assert curve.derivatives == {1: "gradient_f_t"}
    assert curve.domain == (-np.inf, np.inf)
    assert found.classifier is None and found.loss_gradient is None
    assert LINEAR.curve is None
    with pytest.raises(signatures.WrongSignature, match="should have one input, not 2"):
        signatures.curve(LINEAR.manifest)


def test_what_runs_at_once_takes_no_place_and_what_waits_does() -> None:
    """As /gradient does, /evaluate and UM-Bridge answer small requests of a worker that is full."""

    async def full(inputs: dict[str, Any], *wanted: str) -> dict[str, Any]:
        queue = Queue(2, 1)
        with queue.place(2):
            return await infer(slow, inputs, wanted, queue, places=1)

    functions = {
        name: replace(function, number_seconds=1e-5) for name, function in LINEAR.functions.items()
    }
    slow = replace(LINEAR, functions=functions, plans={})
    one, many = np.ones((1, 1, 2)), np.ones((1, 400, 2))
    for _ in range(2):  # the second time by what is remembered of the first
        found = asyncio.run(full({"tangent_x": one, "theta": np.array([2.0, 1.0])}, "jvp_y"))
        assert found["jvp_y"].tolist() == [[3.0]]
        with pytest.raises(QueueFull):
            asyncio.run(full({"tangent_x": many, "theta": np.ones(2)}, "jvp_y"))


def test_what_empties_the_caches_waits_until_others_have_been_read() -> None:
    """A network of 0.3 ms at once, between the reading of two requests, serves a fifth less."""
    value = LINEAR.functions["value"]
    numbers = sum(value.work({"n": 1, "k": 1}))
    network = replace(value, number_seconds=3e-4 / numbers)
    assert network.rows_at_once == 0
    assert replace(value, number_seconds=2e-5 / numbers).rows_at_once > 1


def test_pieces_that_take_a_moment_together_take_no_turns(tmp_path: Path) -> None:
    turns: list[int] = []

    class Counting(Queue):
        async def run(self, session: Any, *arrays: Any) -> Any:
            turns.append(len(arrays[0]))
            return await super().run(session, *arrays)

    loaded = load(publish_curve(tmp_path).folder, Settings())
    assert loaded.curve is not None
    x, y = {loaded.curve.x: np.linspace(-1, 1, 10_000)}, loaded.curve.y
    answers = []
    for seconds, expected in ((1e-9, []), (1.5e-7, [2048] * 4 + [1808])):
        functions = {
            name: replace(function, number_seconds=seconds)
            for name, function in loaded.functions.items()
        }
        model = replace(loaded, functions=functions, plans={})
        answers.append(asyncio.run(infer(model, x, [y], Counting(2, 1)))[y])
        assert turns == expected
    assert answers[0].shape == (10_000,)
    assert (answers[0] == answers[1]).all()


def test_shapes_that_were_right_once_let_no_others_pass() -> None:
    given = {"x": np.ones((3, 2)), "cotangent_y": np.ones((3, 1))}
    for _ in range(2):
        assert ask(LINEAR, given, "vjp_theta")["vjp_theta"].tolist() == [[3.0], [3.0]]
        with pytest.raises(BadTensor, match="with n = 3 as in the inputs before it"):
            ask(LINEAR, {**given, "cotangent_y": np.ones((2, 1))}, "vjp_theta")
        with pytest.raises(BadTensor, match="its type should be float64"):
            ask(LINEAR, {**given, "x": np.ones((3, 2), np.float32)}, "vjp_theta")
