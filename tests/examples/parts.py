"""Small models with opinions, and data of every format, that the examples' tests share."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.models import encoder

Rows = list[dict[str, Any]]


def opinionated(name: str, names: Sequence[str] | None, **changes: object) -> Any:
    """A model whose outputs differ from one input to the next.

    Args:
        name: as in ``tests.models``.
        names: of its classes; None to leave them LABEL_0 and so on.
        changes: to its config.
    """
    if names is not None:
        changes["id2label"] = dict(enumerate(names))
        changes["label2id"] = {name: number for number, name in enumerate(names)}
    return encoder(name, initializer_range=0.5, **changes)


def balance(head: torch.nn.Linear, logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Let each class have its turn.

    Args:
        head: the model's last layer.
        logits: what it gave, [..., classes].

    Returns:
        What it gives now.
    """
    mean = logits.reshape(-1, logits.shape[-1]).mean(axis=0)
    with torch.no_grad():
        head.bias -= torch.from_numpy(mean)
    balanced: np.ndarray[Any, Any] = logits - mean
    return balanced


def texts(count: int) -> list[str]:
    """Words of letters, from 1 to 12 of them."""
    random = np.random.default_rng(0)
    return [" ".join(words(random, int(random.integers(1, 13)))) for _ in range(count)]


def words(random: np.random.Generator, count: int) -> list[str]:
    """Words of 1 to 5 letters."""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return ["".join(random.choice(letters, random.integers(1, 6))) for _ in range(count)]


def write_rows(path: Path, rows: Rows) -> Path:
    """Write rows in the format that the file's name asks for; lists in CSV as JSON."""
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
    """Answers of which every third is another one."""
    return [wrong[each] if row % 3 == 2 else each for row, each in enumerate(right)]


def results(output_dir: Path, stage: str = "eval") -> dict[str, Any]:
    """What an example wrote of a stage, without the stage's name in front."""
    found = json.loads((output_dir / f"{stage}_results.json").read_text(encoding="utf-8"))
    return {name.removeprefix(f"{stage}_"): value for name, value in found.items()}


def read_tsv(path: Path) -> dict[str, list[str]]:
    """Columns by their names."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    return {name: [row[number] for row in rows] for number, name in enumerate(header)}


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value
