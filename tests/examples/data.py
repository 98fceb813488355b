"""Data in every format of the examples."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def texts(count: int) -> list[str]:
    """Make texts of 1 to 12 words."""
    random = np.random.default_rng(0)
    return [" ".join(words(random, int(random.integers(1, 13)))) for _ in range(count)]


def words(random: np.random.Generator, count: int) -> list[str]:
    """Make words of 1 to 5 letters."""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return ["".join(random.choice(letters, random.integers(1, 6))) for _ in range(count)]


def write_rows(path: Path, rows: Rows) -> Path:
    """Write rows in the format of the suffix of the file; lists in CSV as JSON."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(rows[0])
            writer.writerows([_cell(value) for value in row.values()] for row in rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def spoiled(right: Sequence[Any], wrong: Mapping[Any, Any]) -> list[Any]:
    """Return labels of which every third is wrong."""
    return [wrong[each] if row % 3 == 2 else each for row, each in enumerate(right)]


def read_tsv(path: Path) -> dict[str, list[str]]:
    """Read columns by name."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    return {name: [row[number] for row in rows] for number, name in enumerate(header)}


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value
