"""Publish a function: every asked derivative exported, checked, and written as one artifact."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from contract.manifest import ClassifierManifest, CommonManifest, FunctionManifest
from contract.remote import Root, open_draft, root_of
from contract.store import Artifact
from training.errors import JobError
from training.functions import differences, function_report, int8_variant, loss, own_classifier
from training.functions.exported import ExportedFunction, export_plan
from training.functions.function_spec import FunctionSpec, constant_weights, describe, modules_of
from training.functions.plans import ELEMENTS, Plan, plan, require_distinct
from training.functions.publication import Publication
from training.functions.refusal import FAILS_CHECKS, TOO_LARGE, Refusal
from training.functions.time_limit import SECONDS
from training.functions.time_limit import time_limit as limited
from training.publish import report, saliency_report
from training.publish.saliency_checks import SaliencyFigures

LARGE = 1000  # numbers; a longer example is not in the manifest
LIMIT = 2**31 - 1  # bytes of a protobuf, and so of an ONNX file
Say = Callable[[str], None]


@dataclass
class ExportOutcome:
    """What became of every function of a publication."""

    examples: Mapping[str, Tensor]
    spec: FunctionSpec | None = None  # none of a classifier
    exported: list[ExportedFunction] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    saliency: SaliencyFigures | None = None  # of a classifier's map


def publish(
    publication: Publication,
    name: str,
    artifacts: str | Path | Root = "artifacts",
    *,
    skip_failing: bool = False,
    int8: str | Path | None = None,
    pictures: str | Path | None = None,
    time_limit: float = SECONDS,
    say: Say = print,
) -> Artifact:
    """Publish as the next version of the model ``name`` under ``artifacts``.

    ``artifacts`` is a folder, or an address such as ``s3://bucket/prefix``; what is returned of a
    version that was put there tells its manifest, but its folder is gone.

    Every function is checked against eager autograd at 1, 2, 7 and 64 rows, and autograd against
    central differences. With ``skip_failing`` derivatives that can't be published are left out, and
    said; the value must always work. ``int8`` is a folder of pictures to calibrate a classifier's
    int8 variant on. ``pictures`` is one on which a classifier's saliency map is checked, by default
    that of ``int8``; without either it is checked in part. A map that fails is not published.
    ``time_limit`` is in seconds, for each function; 0 is none.

    Raises JobError, which names each function that failed and why; nothing is published then.
    """
    calibrating = _pictures(publication, "int8", int8)
    known = _pictures(publication, "pictures", pictures)
    if known is None:
        known = calibrating
    with open_draft(root_of(artifacts), name) as draft, _prepared(publication):
        outcome = _try_all(publication, known, draft.folder, time_limit, say)
        _require(outcome, skip_failing)
        if calibrating is not None:
            int8_variant.add(outcome.exported, calibrating, draft.folder)
        manifest = _manifest(publication, draft.header, outcome)
        _write(publication, manifest, outcome, draft.folder)
        artifact = draft.publish(manifest)
    say(f"published {draft.published}")
    return artifact


def check(
    publication: Publication,
    *,
    int8: str | Path | None = None,
    pictures: str | Path | None = None,
    time_limit: float = SECONDS,
    say: Say = print,
) -> None:
    """Try every function and say what works; publish nothing. Options are as for ``publish``; of
    ``int8`` it is seen that the folder will do.

    Raises JobError if one can't be published.
    """
    calibrating = _pictures(publication, "int8", int8)
    known = _pictures(publication, "pictures", pictures)
    if known is None:
        known = calibrating
    with tempfile.TemporaryDirectory() as folder, _prepared(publication):
        outcome = _try_all(publication, known, Path(folder), time_limit, say)
    _require(outcome, skip_failing=False)
    say("everything can be published")


def _pictures(
    publication: Publication, option: str, folder: str | Path | None
) -> NDArray[np.uint8] | None:
    """The folder's pictures, read before anything is exported, which may take minutes.

    Raises JobError: no classifier, no such folder, too few pictures.
    """
    if folder is None:
        return None
    if publication.classes is None:
        raise JobError(f"{option} is for classifiers: give classes= as well")
    return own_classifier.pictures(Path(folder), publication.image_side or 0)


@contextmanager
def _prepared(publication: Publication) -> Iterator[None]:
    """Refuse what is too large before it is copied; keep weights constant meanwhile."""
    function = publication.function
    modules = [function] if isinstance(function, nn.Module) else modules_of(function)
    tensors = {tensor for each in modules for tensor in (*each.parameters(), *each.buffers())}
    if any(map(is_lazy, tensors)):
        raise JobError("the module has lazy layers; call it once, which gives them their sizes")
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if total > LIMIT:
        raise Refusal(
            "value",
            TOO_LARGE,
            f"the weights take {total / 2**30:.1f} GiB; an ONNX file holds less than 2 GiB",
        )
    with constant_weights(function):
        yield


def _try_all(
    publication: Publication,
    pictures: NDArray[np.uint8] | None,
    folder: Path,
    seconds: float,
    say: Say,
) -> ExportOutcome:
    """Export and check every function into ``folder``. Raises JobError if the value fails."""
    with limited("value", seconds):
        outcome, plans = planned(publication)
    require_distinct(plans)
    for each in plans:
        try:
            with limited(each.name, seconds):
                done = export_plan(each, outcome.examples, folder)
        except Refusal as error:
            if not outcome.exported:  # the value, which all others are derivatives of
                raise
            outcome.refused.append(error)
        else:
            outcome.exported.append(done)
            left_out = done.checked.left_out
            kinks = f" ({left_out} examples left out, each at a kink)" if left_out else ""
            say(f"{each.name}: agrees with PyTorch to {done.checked.relative_error:.1e}{kinks}")
            for output in done.entry.outputs:
                numbers = math.prod(size for size in output.shape if isinstance(size, int))
                if numbers > ELEMENTS:
                    say(
                        f"{output.name} has {numbers:,} numbers a row: the service gives "
                        f"{ELEMENTS:,} in an answer, more with GRADSERVE_MAX_NUMBERS"
                    )
    if outcome.spec is not None:
        try:
            with limited("central differences", seconds):
                outcome.differences = differences.check(publication, outcome.spec)
        except Refusal as error:
            # All derivatives come from the same autograd.
            outcome.exported = outcome.exported[:1]
            outcome.refused.append(error)
    _check_saliency(publication, pictures, outcome, seconds)
    for refusal in outcome.refused:
        (folder / f"{refusal.function}.onnx").unlink(missing_ok=True)
        say(f"can't be published: {refusal}")
    kept = {each.entry.graph.file for each in outcome.exported}
    for path in folder.glob("*.onnx"):
        if path.name not in kept:
            path.unlink()
    return outcome


def _check_saliency(
    publication: Publication,
    pictures: NDArray[np.uint8] | None,
    outcome: ExportOutcome,
    seconds: float,
) -> None:
    """A map that fails its checks is refused like a function that can't be exported."""
    if all(each.plan.name != "saliency" for each in outcome.exported):
        return
    try:
        with limited("saliency", seconds):
            outcome.saliency = own_classifier.check_saliency(publication, pictures)
        if failures := outcome.saliency.failures():
            raise Refusal("saliency", FAILS_CHECKS, "; ".join(failures))
    except Refusal as error:
        outcome.refused.append(error)
        outcome.exported = [each for each in outcome.exported if each.plan.name != "saliency"]


def planned(publication: Publication) -> tuple[ExportOutcome, list[Plan]]:
    """The plan of every function that there can be, and the refusals of the others."""
    if publication.classes is not None:
        plans, examples = own_classifier.plans(publication)
        return ExportOutcome(examples), plans
    spec = describe(publication)
    outcome = ExportOutcome({**publication.inputs, **publication.targets}, spec)
    plans = []
    makers: list[Callable[[], Plan]] = [
        lambda name=name: plan(name, spec)  # type: ignore[misc]
        for name in ("value", *dict.fromkeys(publication.derivatives))
    ]
    if publication.loss is not None:
        makers.append(lambda: loss.plan_of(publication, spec))
    for make in makers:
        try:
            plans.append(make())
        except Refusal as refusal:
            outcome.refused.append(refusal)
    return outcome, plans


def _require(outcome: ExportOutcome, skip_failing: bool) -> None:
    if outcome.refused and not skip_failing:
        works = ", ".join(each.plan.name for each in outcome.exported)
        reasons = "; ".join(str(refusal) for refusal in outcome.refused)
        stop = "" if reasons.endswith("?") else "."
        raise JobError(f"{reasons}{stop} These work: {works}; --skip-failing publishes those")


def _manifest(
    publication: Publication, header: Mapping[str, Any], outcome: ExportOutcome
) -> ClassifierManifest | FunctionManifest:
    functions = {each.plan.name: each.entry for each in outcome.exported}
    if publication.classes is not None:
        return ClassifierManifest(
            **header,
            functions=functions,
            classes=tuple(publication.classes),
        )
    given = publication.inputs
    batched = publication.examples
    return FunctionManifest(
        **header,
        functions=functions,
        description=publication.description,
        ranges={key: (float(value.min()), float(value.max())) for key, value in given.items()},
        example={
            key: (value[0] if key in batched else value).tolist()
            for key, value in given.items()
            if value.numel() <= LARGE * (len(value) if key in batched else 1)
        },
    )


def _write(
    publication: Publication, manifest: CommonManifest, outcome: ExportOutcome, folder: Path
) -> None:
    """Samples, weights and report."""
    samples = {
        key: array for each in outcome.exported for key, array in each.checked.samples.items()
    }
    report.write_samples(folder, manifest.functions, samples)
    if isinstance(publication.function, nn.Module):
        state = publication.function.state_dict()
        # Copies: two names of one tensor are refused.
        copies = {
            key: value.detach().cpu().contiguous().clone()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }
        save_file(copies, folder / "checkpoint.safetensors")
    skipped = [str(refusal) for refusal in outcome.refused]
    with torch.no_grad():
        text = function_report.write(
            manifest, folder, outcome.spec, publication.inputs, _one_row(outcome),
            outcome.differences, skipped,
        )  # fmt: skip
    if outcome.saliency is not None:
        found = outcome.saliency.as_metrics()
        report.write_metrics(folder, {"saliency": found})
        text = report.document(text, saliency_report.section(found, folder))
    report.write_report(folder, text)


def _one_row(outcome: ExportOutcome) -> dict[str, Callable[[], object]]:
    """Each function of one row, by eager PyTorch."""
    return {each.plan.name: each.eagerly(outcome.examples) for each in outcome.exported}
