"""A graph compared with its reference before it is published, and that with central differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.manifest import Agreement
from training.errors import JobError
from training.functions.kinks import away_from_kinks, beside
from training.functions.plans import Plan
from training.functions.refusal import (
    BAKED_IN,
    DISAGREES,
    NOT_FINITE,
    Refusal,
    from_runtime,
    from_tracing,
)
from training.publish.agreement import BATCH_SIZES, GraphRunner
from training.publish.export import BATCH, innermost, signature

RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-5}
DIRECTIONS = (2, 1, 3, 1)  # tangents a row, beside each of BATCH_SIZES
SAMPLE_ROWS = 8  # in samples.npz: every start of the service replays them
SAMPLE_DIRECTIONS = 2
LEAST_ROWS = 2  # that are not at a kink; if there are fewer, all are compared
TINY = 1e-300  # what a tolerance is at least, for outputs that are all 0

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class CheckResult:
    """What a check found: the manifest's agreement, and the arrays for samples.npz."""

    agreement: Agreement
    samples: Arrays
    relative_error: float  # largest, as a share of the output's own largest number
    left_out: int = 0  # examples at a kink, which were not compared


def check(plan: Plan, path: Path, examples: Sequence[Tensor]) -> CheckResult:
    """Compare the graph in ``path`` with eager PyTorch at 1, 2, 7 and 64 rows.

    Examples at a kink are left out (``kinks``), unless that leaves fewer than two.

    Raises Refusal if it can't be run, gives other shapes or other numbers.
    """
    try:
        run = GraphRunner(path)
    except JobError as error:
        raise from_runtime(plan.name, str(error)) from error
    generator = torch.Generator().manual_seed(0)
    batched = _batched(plan)
    rows = max((len(t) for t, b in zip(examples, batched, strict=True) if b), default=0)
    if not rows:
        return _check_with(plan, run, examples, torch.arange(0), 0, generator)
    by_row = [
        place
        for place, output in enumerate(signature(path)[1])
        if output.shape and output.shape[0] == BATCH
    ]
    kept = _compared(plan, by_row, examples, rows, generator)
    seen = int(kept[-1]) + 1
    while True:
        try:
            return _check_with(plan, run, examples, kept, seen - len(kept), generator)
        except Refusal as refusal:
            steady = kept
            if refusal.kind == DISAGREES:
                steady = _steady(plan, by_row, examples, kept)
            if refusal.kind == DISAGREES and len(steady) == len(kept):
                steady = _unexplained(plan, run, by_row, examples, kept)
            if not LEAST_ROWS <= len(steady) < len(kept):
                raise
            kept = steady


def _check_with(
    plan: Plan,
    run: GraphRunner,
    examples: Sequence[Tensor],
    kept: Tensor,
    left_out: int,
    generator: torch.Generator,
) -> CheckResult:
    """Compare on the examples at the places ``kept``, of which there may be none."""
    rows = len(kept)
    sizes = [(min(rows, SAMPLE_ROWS), SAMPLE_DIRECTIONS)]
    if rows:
        sizes += zip(BATCH_SIZES, DIRECTIONS, strict=True)
    elif plan.vectors:
        sizes += [(0, count) for count in (1, 3)]
    worst_absolute = worst_relative = scale = 0.0
    samples: Arrays = {}
    for count, directions in sizes:
        given = _taken(plan, examples, kept[torch.arange(count) % max(rows, 1)])
        vectors = _vectors(plan, count, directions, generator)
        expected = _reference(plan, vectors, given)
        arrays = _arrays(plan, given, vectors)
        found = _run(plan, run, arrays, count)
        for name, reference in zip(plan.outputs, expected, strict=True):
            absolute, relative, size = _compare(plan.name, name, found[name], reference, count)
            worst_absolute = max(worst_absolute, absolute)
            worst_relative = max(worst_relative, relative)
            scale = max(scale, size)
        if not samples:
            named = zip(plan.outputs, expected, strict=True)
            everything = {**arrays, **{name: each.numpy() for name, each in named}}
            samples = {f"{plan.name}.{name}": array for name, array in everything.items()}
    allowed = _tolerance(plan)
    return CheckResult(
        Agreement(
            maximum_absolute_error=worst_absolute,
            absolute_tolerance=allowed * max(scale, TINY),
            relative_tolerance=allowed,
        ),
        samples,
        worst_relative,
        left_out,
    )


def _batched(plan: Plan) -> list[bool]:
    return [BATCH in each.shape for each in plan.inputs.values()]


def _steady(plan: Plan, by_row: Sequence[int], examples: Sequence[Tensor], kept: Tensor) -> Tensor:
    """Those of the places ``kept`` for which PyTorch gives the same in a large batch and in small.

    It convolves batches of different sizes in different ways. Where the rounding of one of them
    alone decides on which side of a kink an example is, tiny moves of it may not show that.
    """
    rows = max(BATCH_SIZES)
    repeated = torch.arange(rows) % len(kept)
    vectors = _vectors(plan, rows, 1, torch.Generator().manual_seed(3))
    given = _taken(plan, examples, kept[repeated])
    whole = _reference(plan, vectors, given)
    steady = torch.ones(len(kept), dtype=torch.bool)
    named = {**plan.inputs, **plan.vectors}
    for start in range(0, rows, SAMPLE_ROWS):
        few = slice(start, start + SAMPLE_ROWS)
        some = [
            tensor[few] if BATCH in graph_input.shape else tensor
            for tensor, graph_input in zip((*given, *vectors), named.values(), strict=True)
        ]
        parts = _reference(plan, some[len(given) :], some[: len(given)])
        for place in by_row:
            here, scale = whole[place][few], whole[place].abs().max()
            jump = (here - parts[place]).abs().reshape(len(here), -1).amax(1)
            steady[repeated[few][jump > _tolerance(plan) * scale]] = False
    return kept[steady]


def _unexplained(
    plan: Plan, run: GraphRunner, by_row: Sequence[int], examples: Sequence[Tensor], kept: Tensor
) -> Tensor:
    """Those of the places ``kept`` but where the graph gives what PyTorch gives just beside."""
    rows = len(kept)
    vectors = _vectors(plan, rows, 1, torch.Generator().manual_seed(3))
    given = _taken(plan, examples, kept)
    expected = _reference(plan, vectors, given)
    everything = _run(plan, run, _arrays(plan, given, vectors), rows)
    found = [torch.from_numpy(everything[name]) for name in plan.outputs]
    allowed = [_tolerance(plan) * float(expected[place].abs().max()) for place in by_row]
    apart = torch.zeros(rows, dtype=torch.bool)
    for place, most in zip(by_row, allowed, strict=True):
        apart |= (found[place] - expected[place]).abs().reshape(rows, -1).amax(1) > most
    places = torch.arange(rows)[apart]
    if not len(places):
        return kept
    chosen = [
        tensor[places] if BATCH in graph_input.shape else tensor
        for tensor, graph_input in zip(vectors, plan.vectors.values(), strict=True)
    ]

    def near(inputs: Sequence[Tensor]) -> list[Tensor]:
        answers = _reference(plan, chosen, _taken(plan, inputs, places))
        return [answers[place] for place in by_row]

    explained = beside(near, given, [found[place][places] for place in by_row], allowed)
    return torch.cat([kept[~apart], kept[places[~explained]]]).sort().values


def _taken(plan: Plan, examples: Sequence[Tensor], places: Tensor) -> list[Tensor]:
    return [
        tensor[places] if has_rows else tensor
        for tensor, has_rows in zip(examples, _batched(plan), strict=True)
    ]


def _compared(
    plan: Plan,
    by_row: Sequence[int],
    examples: Sequence[Tensor],
    rows: int,
    generator: torch.Generator,
) -> Tensor:
    """Places of the examples to compare: as many as the largest batch, none at a kink.

    Looked at a few at a time, until there are ``plan.enough``.
    """
    few = min(rows, max(BATCH_SIZES))
    settled: list[Tensor] = []
    for start in range(0, few, SAMPLE_ROWS):
        places = torch.arange(start, min(start + SAMPLE_ROWS, few))
        vectors = _vectors(plan, len(places), 1, generator)
        inputs = _taken(plan, examples, places)
        reference = partial(_reference, plan, vectors)
        kept = away_from_kinks(reference, inputs, len(places), by_row, _tolerance(plan))
        settled.append(places[kept])
        if sum(map(len, settled)) >= plan.enough:
            break
    found = torch.cat(settled)
    return found if len(found) >= LEAST_ROWS else torch.arange(few)


def _reference(plan: Plan, vectors: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What PyTorch gives."""
    try:
        return [each.detach() for each in plan.reference(inputs, vectors)]
    except Exception as error:  # it is the user's own
        text = f"PyTorch itself fails: {type(error).__name__}: {innermost(error)}"
        raise from_tracing(plan.name, error, text) from error


def _vectors(plan: Plan, rows: int, directions: int, generator: torch.Generator) -> list[Tensor]:
    """Random tangents and cotangents of the right shapes."""
    sizes = {BATCH: rows, "k": directions}
    return [
        torch.randn(
            [sizes[size] if isinstance(size, str) else size for size in each.shape],
            generator=generator,
            dtype=each.dtype,
        )
        for each in plan.vectors.values()
    ]


def _arrays(plan: Plan, inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> Arrays:
    names = (*plan.inputs, *plan.vectors)
    return {
        name: tensor.detach().numpy()
        for name, tensor in zip(names, (*inputs, *vectors), strict=True)
    }


def _run(plan: Plan, run: GraphRunner, arrays: Mapping[str, NDArray[Any]], rows: int) -> Arrays:
    try:
        return run(arrays)
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        text = str(error).partition("\n")[0]
        raise Refusal(
            plan.name,
            BAKED_IN,
            f"the graph fails for {rows} rows, an operation has a fixed batch size ({text[:160]})",
        ) from error


def _tolerance(plan: Plan) -> float:
    tensors = (*plan.inputs.values(), *plan.vectors.values())
    double = any(each.dtype == torch.float64 for each in tensors)
    return RELATIVE[torch.float64 if double else torch.float32]


def _compare(
    function: str, name: str, found: NDArray[Any], reference: Tensor, rows: int
) -> tuple[float, float, float]:
    """Largest error, the same as a share of the largest reference, and that."""
    expected = reference.numpy()
    what = f"{name} for {rows} rows" if rows else name
    if found.shape != expected.shape:
        raise Refusal(
            function, BAKED_IN, f"{what} has shape {list(found.shape)}, not {list(expected.shape)}"
        )
    if found.dtype != expected.dtype:
        raise Refusal(function, DISAGREES, f"{what} is {found.dtype}, not {expected.dtype}")
    if not np.isfinite(expected).all():
        raise Refusal(function, NOT_FINITE, f"{what}: PyTorch itself gives inf or NaN")
    wide, target = found.astype(np.float64), expected.astype(np.float64)
    difference = np.abs(wide - target)
    scale = float(np.abs(target).max(initial=0.0))
    worst = float(difference.max(initial=0.0)) if np.isfinite(difference).all() else np.inf
    relative = worst / scale if scale else (0.0 if worst == 0 else np.inf)
    allowed = RELATIVE.get(reference.dtype, 0.0)
    if not worst <= allowed * scale:
        # Zero everywhere but for rounding is agreement as well.
        if not (scale == 0 and worst < allowed * 1e-3):
            raise Refusal(
                function,
                DISAGREES,
                f"{what} differs by {worst:.3g}, {relative:.2g} of its largest number; "
                f"{allowed:g} is allowed",
            )
        relative = 0.0
    return worst, relative, scale
