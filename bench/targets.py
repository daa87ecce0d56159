"""The targets of the design, and what was measured against each, from the raw numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench import pictures
from bench.plan import COMPARED_AT, MANY_X, SEVERAL_X

Measured = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One row: what is wanted, what was found; ``met`` is None where it could not be measured."""

    what: str
    wanted: str
    found: str
    met: bool | None


def load(outcome: Measured, question: str, connections: int = COMPARED_AT) -> Measured | None:
    """One load of an outcome, if it took place and served anything."""
    for entry in outcome["loads"].get(question, []):
        if entry["connections"] == connections and entry["served"] > 0:
            return dict(entry)
    return None


def ours(measured: Measured, endpoint: str) -> Measured | None:
    """The outcome of gradserve, if it worked."""
    return next(iter(_outcomes(measured, endpoint, ("ours",))), None)


@dataclass(frozen=True)
class Comparison:
    """A peer's load and ours, measured one right after the other where the plan has it so."""

    peer: str
    its: Measured
    ours: Measured

    @property
    def faster(self) -> float:
        """Our requests per second over the peer's."""
        return float(self.ours["requests_per_s"] / self.its["requests_per_s"])

    @property
    def p99(self) -> float:
        """Our p99 over the peer's."""
        return float(self.ours["p99_ms"] / self.its["p99_ms"])


def compare(
    measured: Measured, outcome: Measured, question: str, own: str | None = None
) -> Comparison | None:
    """One peer and us at one question, if both served it; ours may be ``own``."""
    own = own or question
    its = load(outcome, question)
    mine = _mean(outcome.get("beside", {}).get(own, [])) or _mine(
        measured, outcome["endpoint"], own
    )
    if its is None or mine is None:
        return None
    return Comparison(f"{outcome['name']} ({outcome['role']})", its, mine)


def _mean(loads: list[Measured]) -> Measured | None:
    """The mean of what was measured several times."""
    if not loads:
        return None
    names = ("requests_per_s", "p50_ms", "p99_ms")
    return {name: fmean(entry[name] for entry in loads) for name in names}


@dataclass(frozen=True)
class Limit:
    """What could be served at most, and what was, in requests per second."""

    possible: float
    served: float

    @property
    def share(self) -> float:
        """The part of what is possible that was served."""
        return self.served / self.possible


def limit(measured: Measured, picture: str, precision: str) -> Limit | None:
    """What could be served if nothing were spent but model, decoding and HTTP, on every core.

    All are costs on one core while all are busy: that of HTTP is cores / (requests per second of
    our own service answering a constant on all of them). Ours was measured right beside that.
    """
    cores = measured["machine"]["cores_used"]
    floor = next((o for o in measured["outcomes"] if o["name"].startswith("floor")), None)
    found = compare(measured, floor, picture) if floor else None
    if found is None:
        return None
    http_ms = 1000 * cores / found.its["requests_per_s"]
    model_ms = measured["floors"]["model_on_all_cores_ms"][precision]
    decoding_ms = measured["floors"]["decoding_ms"][picture]["ours"]
    possible = 1000 * cores / (model_ms + decoding_ms + http_ms)
    return Limit(possible, float(found.ours["requests_per_s"]))


def evaluate(measured: Measured) -> list[Target]:
    """Every target of the project that a run of this benchmark can speak to."""
    small, photo = pictures.CIFAR_SIZE.name, pictures.PHOTO_SIZE.name
    servers, plain = ("same graph",), ("same graph", "tuned by hand")
    documented = ("as documented",)
    everyone = (*plain, *documented)
    rows = [
        _ratio(
            measured,
            "classify",
            small,
            servers,
            wanted=2.5,
            against="best model server, same graph",
        ),
        _p99(measured, small, servers),
        _ratio(
            measured,
            "classify",
            small,
            plain,
            wanted=None,
            against="best on the same graph, plain FastAPI tuned by hand included",
        ),
        _ratio(
            measured,
            "classify",
            small,
            servers,
            wanted=4,
            against=f"best model server with {measured['classifier']['model']}'s graph",
            own=by_faster(measured, small),
        ),
        _ratio(
            measured,
            "classify",
            small,
            documented,
            wanted=6,
            against="best peer as its docs show it",
        ),
        _ratio(
            measured, "classify", photo, everyone, wanted=4, against="best peer, 12-megapixel JPEG"
        ),
        _ratio(
            measured,
            "gradient",
            f"{SEVERAL_X} x",
            servers,
            wanted=2.5,
            against="UM-Bridge, same graph",
        ),
        _limit(measured, small),
        _json(measured),
    ]
    found = ours(measured, "classify")
    if found:
        start, memory = found["start_seconds"], found["memory"]["largest_pss"]
        rows.append(
            Target("start to first right answer", "≤ 1.6 s", f"{start:.2f} s", start <= 1.6)
        )
        rows.append(
            Target(
                "memory of one worker, PSS",
                "≤ 100 MB",
                f"{memory:.0f} MiB",
                memory <= 100e6 / 2**20,
            )
        )
    return rows


def _outcomes(measured: Measured, endpoint: str, roles: tuple[str, ...]) -> list[Measured]:
    return [
        outcome
        for outcome in measured["outcomes"]
        if outcome["endpoint"] == endpoint and outcome["role"] in roles and not outcome["failure"]
    ]


def by_faster(measured: Measured, question: str) -> str:
    """The name of the same question to our faster network."""
    return f"{question}, by {(measured.get('faster') or {}).get('model', 'a faster network')}"


def _comparisons(
    measured: Measured, endpoint: str, roles: Iterable[str], question: str, own: str | None = None
) -> list[Comparison]:
    """Ours with each peer of these roles."""
    compared = (
        compare(measured, outcome, question, own)
        for outcome in _outcomes(measured, endpoint, tuple(roles))
    )
    return [found for found in compared if found]


def _ratio(
    measured: Measured,
    endpoint: str,
    question: str,
    roles: tuple[str, ...],
    *,
    wanted: float | None,
    against: str,
    own: str | None = None,
) -> Target:
    what = f"/{endpoint}, {own or question}: requests/s against {against}"
    wish = f"≥ {wanted:g}×" if wanted else "no target"
    compared = _comparisons(measured, endpoint, roles, question, own)
    if not compared:
        return Target(what, wish, "not measured", None)
    found = min(compared, key=lambda comparison: comparison.faster)
    ratio = found.faster
    return Target(what, wish, f"{ratio:.2f}× {found.peer}", ratio >= wanted if wanted else None)


def _p99(measured: Measured, question: str, roles: tuple[str, ...]) -> Target:
    what = f"/classify, {question}: p99 against the model server nearest in it, same graph"
    compared = _comparisons(measured, "classify", roles, question)
    if not compared:
        return Target(what, "≤ 0.5×", "not measured", None)
    found = max(compared, key=lambda comparison: comparison.p99)
    return Target(what, "≤ 0.5×", f"{found.p99:.2f}× {found.peer}", found.p99 <= 0.5)


def _limit(measured: Measured, question: str) -> Target:
    what = f"/classify, {question}: share of its own limit"
    found = limit(measured, question, measured["classifier"]["precision"])
    if found is None:
        return Target(what, "≥ 90 %", "not measured", None)
    text = f"{found.share:.0%} of {found.possible:,.0f}/s"
    return Target(what, "≥ 90 %", text, 0.9 <= found.share <= 1)


def _json(measured: Measured) -> Target:
    what = f"/gradient, {MANY_X:,} x: time against its own JSON parsing and formatting"
    found = ours(measured, "gradient")
    mine = load(found, f"{MANY_X:,} x", 1) if found else None
    costs = measured["floors"].get("json_ms")
    if mine is None or not costs:
        return Target(what, "≤ 2.5×", "not measured", None)
    # Held against the fastest, which is what the service uses: one parses, the other formats.
    ratio = mine["p50_ms"] / min(costs.values())
    libraries = "; ".join(f"{library} {cost:.1f} ms" for library, cost in costs.items())
    text = f"{ratio:.2f}× ({mine['p50_ms']:.1f} ms; {libraries})"
    return Target(what, "≤ 2.5×", text, ratio <= 2.5)


def _mine(measured: Measured, endpoint: str, question: str) -> Measured | None:
    found = ours(measured, endpoint)
    return load(found, question) if found else None
