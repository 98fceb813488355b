"""Small models with distinct outputs, and data in every format."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import encoder

Rows = list[dict[str, Any]]

pipelines = pytest.mark.parametrize(
    "options",
    [["--jit_mode_eval"], ["--cpuaccel_backends", "bettertransformer,jit"]],
    ids=lambda options: options[-1],
)
"""Run a test with the options of each pipeline."""


def distinct_model(name: str, names: Sequence[str] | None, **changes: object) -> Any:
    """Make a model whose outputs differ between inputs.

    Args:
        name: a name in ``tests.models``.
        names: names of its classes; None for LABEL_0 and so on.
        changes: changes to its config.
    """
    if names is not None:
        changes["id2label"] = dict(enumerate(names))
        changes["label2id"] = {name: number for number, name in enumerate(names)}
    return encoder(name, initializer_range=0.5, **changes)


def balance(head: torch.nn.Linear, logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Shift the bias of the last layer so that all classes are predicted.

    Args:
        head: the last layer.
        logits: its outputs, [..., classes].

    Returns:
        Its new outputs.
    """
    mean = logits.reshape(-1, logits.shape[-1]).mean(axis=0)
    with torch.no_grad():
        head.bias -= torch.from_numpy(mean)
    balanced: np.ndarray[Any, Any] = logits - mean
    return balanced


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


def results(output_dir: Path, stage: str = "eval") -> dict[str, Any]:
    """Read the results of a stage, without the prefix of the stage."""
    found = json.loads((output_dir / f"{stage}_results.json").read_text(encoding="utf-8"))
    return {name.removeprefix(f"{stage}_"): value for name, value in found.items()}


def assert_jit_made_all_outputs(found: Mapping[str, Any]) -> None:
    """Assert from the results of a stage that jit was applied and nothing fell back."""
    assert found["cpuaccel_jit_applied"] == 1
    assert found["cpuaccel_calls_optimized"] > 0
    assert found["cpuaccel_calls_original"] == 0


def read_tsv(path: Path) -> dict[str, list[str]]:
    """Read columns by name."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    return {name: [row[number] for row in rows] for number, name in enumerate(header)}


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value
