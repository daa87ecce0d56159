"""One function from its plan to a checked graph in a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

from contract.manifest import Function
from training.functions import checks
from training.functions.plans import DIRECTIONS, Plan
from training.functions.refusal import Refusal, from_tracing
from training.publish.export import BATCH, entry, innermost, to_onnx


@dataclass(frozen=True)
class ExportedFunction:
    """A function that agrees with PyTorch, its graph written."""

    plan: Plan
    entry: Function
    checked: checks.CheckResult

    def eagerly(self, examples: Mapping[str, Tensor]) -> Callable[[], object]:
        """A call of the reference for one row in one direction."""
        inputs = [
            examples[name][:1] if BATCH in graph_input.shape else examples[name]
            for name, graph_input in self.plan.inputs.items()
        ]
        sizes = {BATCH: 1, DIRECTIONS: 1}
        vectors = [
            torch.ones(
                [sizes[s] if isinstance(s, str) else s for s in graph_input.shape],
                dtype=graph_input.dtype,
            )
            for graph_input in self.plan.vectors.values()
        ]
        return lambda: self.plan.reference(inputs, vectors)


def export_plan(plan: Plan, examples: Mapping[str, Tensor], folder: Path) -> ExportedFunction:
    """Write ``<name>.onnx`` and check it. Raises Refusal, with the class of the reason."""
    path = folder / f"{plan.name}.onnx"
    tensors = {**plan.inputs, **plan.vectors}
    try:
        model = to_onnx(plan.build(), list(tensors.values()), list(tensors), plan.outputs)
        onnx.save(model, path)
    except Refusal:
        raise
    except Exception as error:  # recording runs the user's function: it may raise anything
        raise from_tracing(plan.name, error, innermost(error)) from error
    checked = checks.check(plan, path, [examples[name] for name in plan.inputs])
    return ExportedFunction(plan, entry(path, checked.agreement), checked)
