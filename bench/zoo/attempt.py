"""Try every function of models of the collection; a line of JSON for each."""

import json
import sys
import tempfile
import time
from pathlib import Path

from bench.zoo.models import MODELS, Model
from bench.zoo.torchvision_models import CLASSIFIERS, attempt_classifier
from training.errors import JobError
from training.functions import publisher
from training.functions.exported import export_plan
from training.functions.function_spec import constant_weights
from training.functions.refusal import Refusal
from training.functions.time_limit import SECONDS, time_limit


def attempt(model: Model, patience: float) -> None:
    """Export and check each function by itself, within ``patience`` times the usual limit."""
    publication = model.build()
    with tempfile.TemporaryDirectory() as folder, constant_weights(publication.function):
        try:
            tried, plans = publisher.planned(publication)
        except JobError as error:
            for name in model.functions:
                say(model.name, name, error)
            return
        for refusal in tried.refused:
            say(model.name, refusal.function, refusal)
        for plan in plans:
            if plan.name not in model.functions:
                continue
            started = time.monotonic()
            try:
                with time_limit(plan.name, SECONDS * patience):
                    exported = export_plan(plan, tried.examples, Path(folder))
            except Exception as error:  # whatever it is, it is a result
                say(model.name, plan.name, error)
            else:
                say(
                    model.name,
                    plan.name,
                    None,
                    relative_error=exported.checked.relative_error,
                    left_out=exported.checked.left_out,
                    seconds=round(time.monotonic() - started, 1),
                )


def say(model: str, function: str, error: BaseException | None, **figures: float) -> None:
    """One result as a line of JSON."""
    kind = error.kind if isinstance(error, Refusal) else type(error).__name__ if error else None
    outcome = f"{error}"[:600] if error else "works"
    print(
        json.dumps(
            {"model": model, "function": function, "outcome": outcome, "kind": kind, **figures}
        ),
        flush=True,
    )


def main() -> None:
    """Every model that is named, in turn, with an empty line after each."""
    by_name = {model.name: model for model in MODELS}
    patience = float(sys.argv[1])
    for name in sys.argv[2:]:
        if name in CLASSIFIERS:
            attempt_classifier(name, say)
        else:
            attempt(by_name[name], patience)
        print(flush=True)


if __name__ == "__main__":
    main()
