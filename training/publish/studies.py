"""Runs made while developing the recipes, from ``studies.csv``, as tables of a report."""

import csv
from pathlib import Path

from contract.manifest import TrainedClassifierManifest
from training.publish import report

FILE = Path(__file__).parent / "studies.csv"
TITLES = {
    "seeds": "Several seeds",
    "epochs": "How long to train",
    "recipe": "One change at a time to the released network, 45 epochs",
    "teacher": "Learning from other networks",
    "network": "Other networks of about the same cost",
    "short": "Changes to a short schedule (64, 128, 256 channels, about 20 epochs), 3 seeds each",
}


def studies_section(manifest: TrainedClassifierManifest) -> str:
    """What each change gave, on validation images; empty for data or networks never studied."""
    with FILE.open(newline="", encoding="utf-8") as stream:
        rows = [
            row
            for row in csv.DictReader(stream)
            if row["data_sha256"] == manifest.data.sha256
            and row["network"] == manifest.training.config.get("network")
        ]
    if not rows:
        return ""
    parts = [
        "## What each change gave",
        "Top-1 on the validation images, single view, in %. The standard error of one such figure "
        "is about 0.3 points with 94 % of 5,000 right (0.8 of 1,000) and 0.6 with 74 %, so a "
        "single run proves little; with several seeds the mean ± standard deviation is given. The "
        "released seed, 0, was named before any of its runs.",
    ]
    for study, title in TITLES.items():
        chosen = [row for row in rows if row["study"] == study]
        if chosen:
            parts.append(f"### {title}")
            parts.append(
                report.table(
                    ("what", "epochs", "multiply-adds", "runs", "validation top-1"),
                    [
                        (
                            row["what"],
                            int(row["epochs"]),
                            f"{row['multiply_adds_millions']} M",
                            int(row["runs"]),
                            row["validation_top1"],
                        )
                        for row in chosen
                    ],
                )
            )
    return report.document(*parts)
