"""Figures kept in a CSV file as they are made: a run that was cut short goes on from there."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str]  # empty where there is no figure


def add_arguments(parser: argparse.ArgumentParser, default: Path) -> None:
    """The options ``--keep``, a file that is ``default`` unless it is given, and ``--minutes``."""
    parser.add_argument(
        "--keep",
        type=Path,
        default=default,
        help="where each result is written; a later run goes on from there",
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so many; go on later"
    )


class Kept:
    """The rows of a file, and a way to add to it. ``key`` names the columns that tell rows apart.

    A last row that was cut off while it was written is left out, and written anew.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.path, self.columns, self.key = path, tuple(columns), tuple(key)
        self.rows: list[Row] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if None not in row.values()]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self._done = {self._key_of(row) for row in self.rows}

    def has(self, *key: str) -> bool:
        """Whether there is a row with these values of the columns of ``key``."""
        return key in self._done

    def add(self, *values: str) -> None:
        """One more row, in the order of the columns; missing ones at the end are empty."""
        row = dict.fromkeys(self.columns, "") | dict(zip(self.columns, values, strict=False))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        self.rows.append(row)
        self._done.add(self._key_of(row))

    def _key_of(self, row: Row) -> tuple[str, ...]:
        return tuple(row[name] for name in self.key)
