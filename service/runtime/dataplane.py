"""The one way to a model: named arrays in, named arrays out. Every endpoint asks here.

A model is a whole artifact: its inputs and outputs are those of all its functions together. A
caller names the outputs that it wants, and ``infer`` runs as few functions as give them:

    found = await infer(model, {"x": np.array([0.1, 3.0])}, ["y", "gradient"], queue)
    found["gradient"]  # float64 [2]

What ``infer`` sees to, so that no endpoint has to:

- names, types and shapes are checked against the manifest, and sizes that share a name must be
  equal (``n`` rows here, ``n`` rows there);
- the size of the answer is known before anything is computed, and is refused over the limit;
- a run takes as many rows as suit the model, and other requests get their turn in between. That is
  possible where rows don't depend on each other: the dimension named ``n`` comes first in every
  output. Inputs without it (parameters, say) go whole into each run. A function that sums over the
  rows runs once, with all of them;
- what takes a moment runs at once, what takes longer waits for its turn, and what takes very long
  runs in a thread beside the event loop.

An endpoint whose requests take long before or after it holds a place in the queue
(``Queue.place``) around the call, from the whole body to the answer; for others it takes as many as
it is told, unless there is nothing to wait for. It doesn't judge results: whether an infinity is an
error depends on who asked. It knows nothing of HTTP.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np

from contract.manifest import shape_text
from contract.signatures import ROWS
from service.runtime.cost import Cost
from service.runtime.errors import BadTensor, TooManyNumbers
from service.runtime.loader import AT_ONCE_SECONDS, Layout, LoadedFunction, Model, Plan
from service.runtime.queue import LONG_RUN_BYTES, LONG_SECONDS, Queue
from service.runtime.session import Array, GraphError

# Pieces that take no longer together run one after the other: a turn each would take a tenth more.
PIECES_AT_ONCE_SECONDS = 0.002
PLANS = 256  # combinations of inputs and outputs that a model remembers
LAYOUTS = 256  # and of their shapes that a plan remembers


async def infer(
    model: Model, inputs: Mapping[str, Array], wanted: Sequence[str], queue: Queue, places: int = 0
) -> dict[str, Array]:
    """The ``wanted`` outputs; all that ``inputs`` suffice for, if none is named.

    Arrays have the types and shapes of the manifest's tensors. The answer is in the order of the
    artifact's functions. ``places`` of the queue are held while it waits and runs, none if it runs
    at once.
    Raises BadTensor (an input or output is unknown, missing, of another type or shape, or the graph
    can't compute with it), TooManyNumbers (the answer would be over the limit) and QueueFull.
    """
    plan = plan_for(model, inputs, wanted)
    rows = plan.rows_of(inputs)
    if rows:
        layout = Layout({ROWS: rows}, rows * plan.row_numbers, rows <= plan.rows_at_once)
    else:
        layout = _layout(model, plan, inputs)
    if layout.numbers > model.max_numbers:
        raise TooManyNumbers(
            f"The answer would have {layout.numbers} numbers; "
            f"ask for at most {model.max_numbers} at once"
        )
    found: dict[str, Array] = {}
    asked = time.perf_counter()
    try:
        if layout.at_once:
            for function in plan.functions:
                session = function.session
                outputs = session.run(*[inputs[name] for name in session.inputs])
                found.update(zip(session.outputs, outputs, strict=True))
        else:
            with queue.place(places) if places else nullcontext():
                for function in plan.functions:
                    session = function.session
                    arrays = [inputs[name] for name in session.inputs]
                    outputs = await _run(function, arrays, layout.sizes, queue)
                    found.update(zip(session.outputs, outputs, strict=True))
    except GraphError as error:
        raise BadTensor(f"the model can't compute with these inputs: {error}") from None
    manifest, seconds = model.manifest, time.perf_counter() - asked
    queue.observer.ran(manifest.model, manifest.version, rows or 1, len(plan.functions), seconds)
    return {name: found[name] for name in plan.outputs}


def _layout(model: Model, plan: Plan, inputs: Mapping[str, Array]) -> Layout:
    """What follows from the inputs' shapes. Raises BadTensor where they are wrong."""
    if not model.ranges.keys().isdisjoint(inputs):  # their values are to be checked as well
        return _new_layout(model, plan, inputs)
    key = tuple([(array.dtype, array.shape) for array in inputs.values()])
    layout = plan.layouts.get(key)
    if layout is None:
        layout = _new_layout(model, plan, inputs)
        if len(plan.layouts) < LAYOUTS:
            plan.layouts[key] = layout
    return layout


def _new_layout(model: Model, plan: Plan, inputs: Mapping[str, Array]) -> Layout:
    sizes = check(model, inputs)
    at_once = all(_at_once(function, sizes) for function in plan.functions)
    return Layout(sizes, plan.count(sizes), at_once)


def _at_once(function: LoadedFunction, sizes: Mapping[str, int]) -> bool:
    rows, step, seconds = _pieces(function, sizes)
    return rows <= step and seconds <= AT_ONCE_SECONDS


def _pieces(function: LoadedFunction, sizes: Mapping[str, int]) -> tuple[int, int, float]:
    """How many rows there are, how many of them a run takes, and the seconds of such a run."""
    every, row = function.work(sizes)
    rows = sizes[ROWS] if row else 1
    step = function.rows_in_a_run(every, row)
    return rows, step, (every + row * min(rows, step)) * function.number_seconds


def plan_for(model: Model, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Plan:
    """Which functions to run for ``wanted``. Raises BadTensor if they can't be had from these."""
    key = (tuple(inputs), tuple(wanted))
    plan = model.plans.get(key)
    if plan is None:
        plan = _make_plan(model, inputs, wanted)
        if len(model.plans) < PLANS:
            model.plans[key] = plan
    return plan


def check(model: Model, inputs: Mapping[str, Array]) -> dict[str, int]:
    """The size of every named dimension. Raises BadTensor where inputs are not as they should be:
    unknown, of another type or shape, or of sizes that contradict each other."""
    known = model.signature.inputs
    sizes: dict[str, int] = {}
    for name, array in inputs.items():
        tensor = known.get(name)
        if tensor is None:
            raise BadTensor(f"there is no such input; there are: {', '.join(known)}")
        if array.dtype != model.dtypes[name]:
            raise BadTensor(f"its type should be {tensor.dtype}", name)
        shape, given = f"its shape should be {shape_text(tensor.shape)}", shape_text(array.shape)
        if array.ndim != len(tensor.shape):
            raise BadTensor(f"{shape}, not {given}", name)
        for size, expected in zip(array.shape, tensor.shape, strict=True):
            wanted = sizes.setdefault(expected, size) if isinstance(expected, str) else expected
            if size == 0:
                raise BadTensor(f"{shape}, and none of it 0", name)
            if size != wanted and wanted == expected:
                raise BadTensor(f"{shape}, not {given}", name)
            if size != wanted:
                before = f"{expected} = {wanted} as in the inputs before it"
                raise BadTensor(f"{shape}, with {before}, not {given}", name)
        if name in model.ranges:
            low, high = model.ranges[name]
            if array.min() < low or array.max() > high:
                raise BadTensor(f"its elements should be from {low} to {high}", name)
    return sizes


def _make_plan(model: Model, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Plan:
    """As few functions as give what is wanted, for one may give another's output too."""
    known = model.signature
    for name in inputs:
        if name not in known.inputs:
            raise BadTensor(f"there is no such input; there are: {', '.join(known.inputs)}")
    for name in wanted:
        if name not in known.outputs:
            raise BadTensor(f"there is no such output; there are: {', '.join(known.outputs)}")
    gives = {
        name: set(function.session.outputs)
        for name, function in model.functions.items()
        if inputs.keys() >= set(function.session.inputs)
    }
    available = {output for outputs in gives.values() for output in outputs}
    missing = set(wanted) or set(available)
    if not missing:
        raise BadTensor("these inputs suffice for no output")
    asked = set(missing)
    chosen: list[LoadedFunction] = []
    while missing:
        gain = {name: len(missing.intersection(outputs)) for name, outputs in gives.items()}
        # Of those that give most, the one that gives least besides.
        best = max(gain, key=lambda name: (gain[name], -len(gives[name])), default=None)
        if best is None or not gain[best]:
            raise _input_missing(model, inputs, missing)
        chosen.append(model.functions[best])
        missing.difference_update(gives[best])
    names = tuple(name for name in known.outputs if name in asked)
    plain = {
        name: (model.dtypes[name], tensor.shape[1:])
        for name in inputs
        if (tensor := known.inputs[name]).shape[:1] == (ROWS,)
        and name not in model.ranges
        and all(isinstance(size, int) for size in tensor.shape[1:])
    }
    functions = tuple(chosen)
    if len(plain) < len(inputs) or not all(function.fixed_work for function in functions):
        return Plan(functions, names)
    row_numbers = sum(Plan((function,), names).count({ROWS: 1}) for function in functions)
    return Plan(functions, names, tuple((n, t, s) for n, (t, s) in plain.items()), row_numbers)


def _input_missing(model: Model, inputs: Mapping[str, Array], outputs: set[str]) -> BadTensor:
    for function in model.functions.values():
        if outputs.intersection(gives := function.session.outputs):
            lacking = next(name for name in function.session.inputs if name not in inputs)
            asked = [name for name in gives if name in outputs]
            verb = "need" if asked[1:] else "needs"
            return BadTensor(f"{', '.join(asked)} {verb} this input as well", lacking)
    raise AssertionError("every output is some function's")


async def _run(
    function: LoadedFunction, arrays: list[Array], sizes: Mapping[str, int], queue: Queue
) -> list[Array]:
    """The outputs of one function, a few rows at a time where rows are independent."""
    rows, step, seconds = _pieces(function, sizes)
    if rows <= step:
        if seconds <= AT_ONCE_SECONDS:
            return function.session.run(*arrays)
        return await _in_turn(function, arrays, seconds, queue)
    pieces = [
        [
            array[start : start + step] if with_rows else array
            for array, with_rows in zip(arrays, function.with_rows, strict=True)
        ]
        for start in range(0, rows, step)
    ]
    if seconds * len(pieces) <= PIECES_AT_ONCE_SECONDS:
        parts = [function.session.run(*piece) for piece in pieces]
    else:
        parts = [await _in_turn(function, piece, seconds, queue) for piece in pieces]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


async def _in_turn(
    function: LoadedFunction, arrays: list[Array], seconds: float, queue: Queue
) -> list[Array]:
    if function.independent and all(function.with_rows):
        return await queue.run(function.session, *arrays)
    # The queue may join the rows of several requests; these inputs aren't all made of rows.
    if seconds > LONG_SECONDS:
        queue.graphs.check()
        cost = Cost(seconds, LONG_RUN_BYTES)
        return await queue.graphs.in_thread(cost, function.session.run, *arrays)
    return await queue.do(function.session.run, *arrays)
