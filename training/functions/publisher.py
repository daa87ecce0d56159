"""Publish a function: every asked derivative exported, checked, and written as one artifact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import torch

from contract.manifest import Function, FunctionManifest, Graph
from contract.store import Artifact, Draft
from training.errors import JobError
from training.functions import checks
from training.functions.described import Described, constant_weights, describe
from training.functions.plans import Plan, plan, require_distinct
from training.functions.publication import Publication
from training.functions.refusal import Refusal, from_tracing
from training.publish import report
from training.publish.export import TRACING_ERRORS, innermost, signature, to_onnx

LARGE = 1000  # numbers; a longer example is not in the manifest
Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """A function that agrees with PyTorch, its graph written."""

    plan: Plan
    entry: Function
    checked: checks.Checked


def publish(
    publication: Publication,
    name: str,
    artifacts: str | Path = "artifacts",
    *,
    skip_failing: bool = False,
    say: Say = print,
) -> Artifact:
    """Publish as the next version of the model ``name`` under ``artifacts``.

    Every function is checked against eager autograd at 1, 2, 7 and 64 rows. With ``skip_failing``
    derivatives that can't be published are left out, and said; ``value`` must always work.

    Raises JobError, which names each function that failed and why; nothing is published then.
    """
    with Draft(Path(artifacts), name) as draft, constant_weights(publication.function):
        described = describe(publication)
        exported = export_all(publication, described, draft.folder, skip_failing, say)
        manifest = _manifest(publication, draft.model, exported)
        samples = {key: array for each in exported for key, array in each.checked.samples.items()}
        report.write_samples(draft.folder, samples)
        artifact = draft.publish(manifest)
    say(f"published {artifact.folder}")
    return artifact


def export_all(
    publication: Publication,
    described: Described,
    folder: Path,
    skip_failing: bool,
    say: Say,
) -> list[Exported]:
    """Every function into ``folder``. Raises JobError if one fails that may not be skipped."""
    plans, refused = _plans(publication, described)
    require_distinct(plans)
    exported: list[Exported] = []
    for each in plans:
        try:
            exported.append(_export(each, list(publication.inputs.values()), folder))
            say(f"{each.name}: agrees with PyTorch to {exported[-1].checked.relative_error:.1e}")
        except Refusal as error:
            (folder / f"{each.name}.onnx").unlink(missing_ok=True)
            refused.append(error)
            if each.name == "value":
                raise
    for refusal in refused:
        say(f"refused {refusal}")
    if refused and not skip_failing:
        works = ", ".join(each.plan.name for each in exported)
        raise JobError(
            "; ".join(str(refusal) for refusal in refused)
            + f". These work: {works}; --skip-failing publishes those"
        )
    return exported


def _plans(publication: Publication, described: Described) -> tuple[list[Plan], list[Refusal]]:
    plans, refused = [], []
    for name in ("value", *dict.fromkeys(publication.derivatives)):
        try:
            plans.append(plan(name, described))
        except Refusal as error:
            refused.append(error)
    return plans, refused


def _export(each: Plan, examples: Sequence[torch.Tensor], folder: Path) -> Exported:
    path = folder / f"{each.name}.onnx"
    tensors = {**each.inputs, **each.vectors}
    try:
        model = to_onnx(each.build(), list(tensors.values()), list(tensors), each.outputs)
    except Refusal:
        raise
    except TRACING_ERRORS as error:
        raise from_tracing(each.name, error, innermost(error)) from error
    onnx.save(model, path)
    checked = checks.check(each, path, examples)
    inputs, outputs = signature(path)
    precision: Any = "fp64" if any(t.dtype == "float64" for t in (*inputs, *outputs)) else "fp32"
    entry = Function(
        inputs=inputs,
        outputs=outputs,
        graph=Graph(file=path.name, precision=precision, agreement=checked.agreement),
    )
    return Exported(each, entry, checked)


def _manifest(
    publication: Publication, model: str, exported: Sequence[Exported]
) -> FunctionManifest:
    inputs = publication.inputs
    return FunctionManifest(
        model=model,
        version=1,  # the draft gives it the next one
        created_utc=datetime.now(UTC),
        functions={each.plan.name: each.entry for each in exported},
        files={},
        description=publication.description,
        ranges={key: (float(value.min()), float(value.max())) for key, value in inputs.items()},
        example={
            key: (value[0] if key in publication.examples else value).tolist()
            for key, value in inputs.items()
            if value.numel() <= LARGE * (len(value) if key in publication.examples else 1)
        },
    )
