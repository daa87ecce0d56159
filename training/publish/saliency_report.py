"""What the checks of a saliency map found, as a section of a report with its plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.publish import report
from training.publish.saliency_checks import (
    HIGHEST_CORRELATION,
    LARGEST_GAP,
    LEAST_SPREAD,
    SERVED,
    mean,
)

PLOT = "saliency.png"


def section(found: Mapping[str, Any] | None, folder: Path) -> str:
    """The card; draws its plot into ``folder``. Nothing where the map was not checked."""
    if found is None:
        return ""
    draw(folder / PLOT, found)
    failures = found["failures"]
    verdict = (
        f"**Not published**: {'; '.join(failures)}."
        if failures
        else f"The map passed each check that could be made, on {found['images']} images."
    )
    return report.document(
        "## Is the saliency map one of this network?",
        verdict,
        report.table(("check", "found", "wanted"), rows(found)),
        f"![What the checks found]({PLOT})",
        "The weights are shuffled layer by layer from the last one (arXiv 1810.03292); a map that "
        "ignores them keeps a rank correlation of 1. It says whether the map is of these weights, "
        "not whether they have learned something: an untrained network passes.",
        _of_integrals(found),
        _of_squares(found),
    )


def _of_integrals(found: Mapping[str, Any]) -> str:
    if found["gap"] is None:
        return ""
    return (
        "Integrated gradients are multiplied by the picture, which the maps before and after have "
        "in common, so that some of the correlation stays. Completeness (arXiv 1703.01365) is of "
        "the signed values before the map takes their size. What is judged is an integral of "
        f"{found['steps']} steps. **What is served takes {SERVED}**: it misses the difference by "
        "what the table says, at a fraction of the time, and its ranks, which are what a picture "
        "of it shows, are compared with those of the integral."
    )


def _of_squares(found: Mapping[str, Any]) -> str:
    if not found["deletion"]:
        return (
            "Deletion and insertion were not tried: they take photographs such as the network "
            "knows, and none were given."
        )
    text = (
        "Deletion and insertion (arXiv 1806.07421) blur squares of the picture, or begin with a "
        "blurred one: the mean probability of the class along the way."
    )
    if found["spread"] < LEAST_SPREAD:
        text += (
            f" **Here they say nothing**: it moves by {found['spread']:.2f} only, whatever is "
            "blurred. Of an untrained network that is to be expected."
        )
    return text


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Check, figure, limit; for people."""
    lines = [
        (
            "rank correlation, all weights random",
            f"{found['correlation'][-1]:.2f}" if found["correlation"] else "–",
            f"under {HIGHEST_CORRELATION:.2f}",
        )
    ]
    if found["gap"] is not None:
        lines += [
            (
                f"integrated gradients less the logit's difference, {found['steps']} steps",
                f"{found['gap']:.2%}",
                f"under {LARGEST_GAP:.0%}",
            ),
            *_served(found),
            ("rank correlation of the map with those", f"{found['likeness']:.3f}", "0.95 or more"),
        ]
    for name, word in (("deletion", "under"), ("insertion", "over")) if found["deletion"] else ():
        chance = mean(found[f"{name}_at_random"])
        lines.append((f"{name}, area", f"{mean(found[name]):.3f}", f"{word} {chance:.3f}, random"))
    return lines


def _served(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    gap = found.get("served_gap")  # reports of before have none
    what = f"the same with the {SERVED} steps of the map that is served"
    return [(what, f"{gap:.1%}", "–")] if gap is not None else []


def draw(path: Path, found: Mapping[str, Any]) -> None:
    """Correlation by stage, and both curves beside those in a random order."""
    columns = 3 if found["deletion"] else 1
    with report.figure(path, columns=columns, size=(4 * columns, 3.6)) as (random, *curves):
        stages = found["correlation"]
        random.plot(range(1, len(stages) + 1), stages, "o-", color=report.MODEL_COLOUR)
        random.axhline(HIGHEST_CORRELATION, color=report.TRUTH_COLOUR, linewidth=1)
        random.set(xlabel="layers randomised, in steps", ylabel="rank correlation", ylim=(-0.1, 1))
        for axes, name in zip(curves, ("deletion", "insertion"), strict=False):
            for key, label, colour in (
                (name, "as the map says", report.MODEL_COLOUR),
                (f"{name}_at_random", "in a random order", report.TRUTH_COLOUR),
            ):
                share = [100 * part / (len(found[key]) - 1) for part in range(len(found[key]))]
                axes.plot(share, found[key], color=colour, label=label)
            axes.set(xlabel=f"{name}: squares (%)", ylabel="probability", ylim=(0, 1))
            axes.legend(fontsize=9)
