"""The report: one document of Markdown tables from the raw numbers, and its place in the README."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import pictures, targets
from bench.measure import Outcome
from bench.overload import IN_TIME, KNEE_CONNECTIONS, MULTIPLES
from bench.plan import COMPARED_AT, MANY_X, OVERLOAD, OVERLOADED_BY, SEVERAL_X

BEGIN = "<!-- results: written by make bench -->"
END = "<!-- end of results -->"
MEGA = 1e6


def one_line(outcome: Outcome) -> str:
    """What became of one server, for whoever watches."""
    if outcome.failure:
        return f"FAILED: {outcome.failure}"
    loads = "; ".join(
        f"{name} ×{load.connections}: {_number(load.requests_per_s)}/s"
        for name, entries in outcome.loads.items()
        for load in entries
    )
    return f"ready after {outcome.start_seconds:.2f} s; {loads}"


def markdown(measured: dict[str, Any]) -> str:
    """The whole report. ``measured`` is what run.py writes as raw JSON."""
    parts = [_heading(measured), "### Targets", _targets(measured)]
    for picture in pictures.PICTURES:
        if any(picture.name in outcome["loads"] for outcome in measured["outcomes"]):
            parts += [
                f"### `/classify`: {picture.name}",
                _loads(measured, "classify", picture.name),
            ]
    several = f"{SEVERAL_X} x"
    parts += [f"### `/gradient`: {several}", _loads(measured, "gradient", several)]
    parts += [f"### `/gradient`: {MANY_X:,} x, one connection", _many(measured)]
    parts += ["### Limits", _limits(measured), "### Start and memory", _starts(measured)]
    parts += ["### Cost against batch size, one core", _batches(measured)]
    parts += ["### Cost against the number of x", _points(measured)]
    overload = [_overload(measured), curves(measured.get("overload", []))]
    if any(overload):
        parts += ["### Overload", *filter(None, overload)]
    failures = [o for o in measured["outcomes"] if o["failure"]]
    if failures:
        rows = [[o["name"], o["role"], o["failure"].replace("|", "/")] for o in failures]
        parts += ["### What failed", _table(["server", "as", "why"], rows)]
    return "\n\n".join(parts)


def insert(readme: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put the report between the markers of the README; everything else there stays."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _heading(measured: dict[str, Any]) -> str:
    machine, classifier = measured["machine"], measured["classifier"]
    derivative = measured["derivative"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    served = (targets.ours(measured, "classify") or {}).get("precision") or classifier["precision"]
    differs = (
        f" **gradserve itself served {served}: on this machine the {classifier['precision']} graph "
        "does not agree with its samples.**"
        if served != classifier["precision"]
        else ""
    )
    kind = "quick run" if measured["quick"] else "whole run"
    return (
        f"{measured['date']}, {kind} of {measured['seconds'] / 60:.1f} minutes, "
        f"commit {machine['commit']}. {machine['cpu']}, {machine['cores_used']} of "
        f"{machine['cores']} cores for server and wrk together, {machine['memory_gib']} GiB; "
        f"{machine['system']}, Python {machine['python']}; load average at the end "
        f"{machine['load_average']:.1f}.\n\n"
        f"Network: {classifier['model']} version {classifier['version']}, "
        f"{classifier['multiply_adds'] / MEGA:,.0f} million multiply-adds, graph in "
        f"{classifier['precision']};{differs}{_faster(measured)} f′: {derivative['model']} version "
        f"{derivative['version']}.\n\n{versions}."
    )


def _faster(measured: dict[str, Any]) -> str:
    """What the heading says of our faster network, where one was measured."""
    faster = measured.get("faster")
    if faster is None:
        return ""
    return (
        f" beside it {faster['model']} version {faster['version']}, "
        f"{faster['multiply_adds'] / MEGA:,.0f} million multiply-adds, in {faster['precision']}, "
        "served by gradserve alone;"
    )


def _targets(measured: dict[str, Any]) -> str:
    verdicts = {True: "met", False: "**missed**", None: "–"}
    rows = [[t.what, t.wanted, t.found, verdicts[t.met]] for t in targets.evaluate(measured)]
    return _table(["target", "wanted", "measured", ""], rows)


def _loads(measured: dict[str, Any], endpoint: str, question: str) -> str:
    outcomes = [o for o in measured["outcomes"] if o["endpoint"] == endpoint]
    connections = sorted(
        {entry["connections"] for o in outcomes for entry in o["loads"].get(question, [])}
    )
    header = ["server", "as"]
    for number in connections:
        header += [f"{number} conn.: req/s", "p50 ms", "p99 ms"]
    header.append(f"ours ÷ it, {COMPARED_AT} conn.")
    rows = []
    for outcome in outcomes:
        if outcome["failure"]:
            empty = [""] * (len(header) - 3)
            rows.append([outcome["name"], outcome["role"], "failed, see below", *empty])
            continue
        if question not in outcome["loads"]:
            continue
        row = [outcome["name"], outcome["role"]]
        for number in connections:
            row += _cells(targets.load(outcome, question, number))
        compared = targets.compare(measured, outcome, question)
        row.append(f"{compared.faster:.2f}" if compared else "–")
        rows.append(row)
        own = targets.by_faster(measured, question)
        if own in outcome["loads"]:
            row = [f"{outcome['name']}, {measured['faster']['model']}", outcome["role"]]
            for number in connections:
                row += _cells(targets.load(outcome, own, number))
            rows.append([*row, "–"])
    return _table(header, rows)


def _cells(load: dict[str, Any] | None) -> list[str]:
    if load is None:
        return ["–", "–", "–"]
    rate = _number(load["requests_per_s"])
    lost = [f"{load[kind]:,} {kind}" for kind in ("refused", "broken") if load[kind]]
    rate += f" ({', '.join(lost)})" if lost else ""
    return [rate, _number(load["p50_ms"]), _number(load["p99_ms"])]


def _many(measured: dict[str, Any]) -> str:
    rows = []
    for outcome in measured["outcomes"]:
        load = targets.load(outcome, f"{MANY_X:,} x", 1)
        if load and not outcome["failure"]:
            rows.append([outcome["name"], outcome["role"], _number(load["p50_ms"])])
    for library, cost in measured["floors"].get("json_ms", {}).items():
        rows.append(
            [
                f"parsing our request and formatting our answer with {library}",
                "floor",
                _number(cost),
            ]
        )
    return _table(["", "as", "p50 ms"], rows)


def _limits(measured: dict[str, Any]) -> str:
    precision = measured["classifier"]["precision"]
    rows = []
    for picture, decoding in measured["floors"]["decoding_ms"].items():
        found = targets.limit(measured, picture, precision)
        rows.append(
            [
                picture,
                _number(measured["floors"]["model_ms"][precision]["1"]),
                _number(measured["floors"]["model_on_all_cores_ms"][precision]),
                _number(decoding["ours"]),
                _number(decoding["peers"]),
                _number(found.possible) if found else "–",
                _number(found.served) if found else "–",
                f"{found.share:.0%}" if found else "–",
            ]
        )
    header = ["picture", "model ms, one core", "all cores", "our decoding ms", "plain decoding ms"]
    text = (
        "Limit = cores ÷ (model on all cores at once + our decoding + HTTP floor on one core), "
        "the floor being gradserve itself reading the upload and answering a constant; ours is "
        "measured right before and after it."
    )
    return text + "\n\n" + _table([*header, "limit, req/s", "ours, req/s", "share"], rows)


def _starts(measured: dict[str, Any]) -> str:
    rows = [
        [
            outcome["name"],
            outcome["role"],
            f"/{outcome['endpoint']}",
            f"{outcome['start_seconds']:.2f}",
            str(outcome["memory"]["processes"]),
            f"{outcome['memory_at_start']['largest_pss']:.0f}",
            *(
                f"{outcome['memory'][key]:.0f}"
                for key in ("largest_pss", "largest_rss", "total_pss")
            ),
        ]
        for outcome in measured["outcomes"]
        if outcome["memory"]
    ]
    header = ["server", "as", "endpoint", "start to first right answer, s", "processes"]
    sizes = ["when started", "after all loads", "RSS", "all processes"]
    text = "Memory in MiB: PSS of the largest process, its RSS, and the PSS of all together."
    return text + "\n\n" + _table([*header, *sizes], rows)


def _batches(measured: dict[str, Any]) -> str:
    models = measured["floors"]["model_ms"]
    sizes = list(next(iter(models.values())))
    rows = [
        [f"graph in {kind}" if kind != "eager" else "PyTorch eager"]
        + [_number(costs[size] / int(size)) if size in costs else "–" for size in sizes]
        for kind, costs in models.items()
    ]
    text = "Milliseconds an image, the model alone on one thread, by images in a batch."
    mine = targets.ours(measured, "classify")
    whole = [
        f"{name}: {load[0]['p50_ms']:.2f} ms"
        for name, load in (mine["loads"] if mine else {}).items()
        if name.endswith("in a request")
    ]
    if whole:
        text += f" Whole requests to gradserve, one connection, p50: {'; '.join(whole)}."
    return text + "\n\n" + _table(["", *sizes], rows)


def _points(measured: dict[str, Any]) -> str:
    mine = targets.ours(measured, "gradient")
    rows = []
    for count, cost in measured["floors"]["derivative_ms"].items():
        load = targets.load(mine, f"{int(count):,} x", 1) if mine else None
        rows.append([f"{int(count):,}", _number(cost), _number(load["p50_ms"]) if load else "–"])
    return _table(
        ["x", "graph of f′ alone, ms", "gradserve /gradient, one connection, p50 ms"], rows
    )


def _overload(measured: dict[str, Any]) -> str:
    mine = targets.ours(measured, "classify")
    load = targets.load(mine, OVERLOAD, OVERLOADED_BY) if mine else None
    usual = targets.load(mine, pictures.CIFAR_SIZE.name, 64) if mine else None
    if load is None or usual is None:
        return ""
    offered = load["requests_per_s"] * (load["served"] + load["refused"]) / load["served"]
    return (
        f"gradserve, {pictures.CIFAR_SIZE.name}, {OVERLOADED_BY} connections, each asking again as "
        f"soon as it is answered or refused: {_number(offered)} requests/s arrive, "
        f"{_number(load['requests_per_s'])}/s are served "
        f"({load['requests_per_s'] / usual['requests_per_s']:.0%} of what 64 connections get), "
        f"{load['refused']:,} were refused and {load['broken']:,} broke; half of all answers came "
        f"within {_number(load['p50_ms'])} ms, 99 % within {_number(load['p99_ms'])} ms. "
        "The clients, who never wait, take their share of the same cores."
    )


def curves(found: Sequence[dict[str, Any]]) -> str:
    """The servers' overload curves (``bench.overload.Curve``, as JSON has them) as a table."""
    if not found:
        return ""
    rows = []
    for curve in found:
        cells = {}
        for each in curve["slices"]:
            goodput = each["in_time"] / each["seconds"] / each["knee"]
            cells[each["multiple"]] = f"{goodput:.2f} ({each['in_time'] / each['sent']:.0%})"
        rows.append(
            [
                curve["name"],
                curve["role"],
                _number(fmean(each["knee"] for each in curve["slices"])) if cells else "–",
                *(cells.get(multiple, "–") for multiple in MULTIPLES),
                f"{max((each['late_by'] for each in curve['slices']), default=0):.2f} s",
                (curve["failure"] or "").replace("|", "/").replace("\n", " "),
            ]
        )
    text = (
        f"{pictures.DENSE.name}, sent at fixed times at multiples of the server's own knee (what "
        f"{KNEE_CONNECTIONS} connections get, measured before each): right answers within "
        f"{IN_TIME:g} s a second, as a part of the knee, and in brackets the share of all requests "
        "that got one. The generator takes its share of the same cores, and says how late it was."
    )
    header = ["server", "as", "knee, req/s", *(f"{multiple}×" for multiple in MULTIPLES)]
    return text + "\n\n" + _table([*header, "generator late by", "what failed"], rows)


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
