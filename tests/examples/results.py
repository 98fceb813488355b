"""Results of the examples, with and without a pipeline."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pipelines = pytest.mark.parametrize(
    "options",
    [["--jit_mode_eval"], ["--cpuaccel_backends", "bettertransformer,jit"]],
    ids=lambda options: options[-1],
)
"""Run a test with the options of each pipeline."""


def results(output_dir: Path, stage: str = "eval") -> dict[str, Any]:
    """Read the results of a stage, without the prefix of the stage."""
    found = json.loads((output_dir / f"{stage}_results.json").read_text(encoding="utf-8"))
    return {name.removeprefix(f"{stage}_"): value for name, value in found.items()}


def assert_jit_made_all_outputs(found: Mapping[str, Any]) -> None:
    """Assert from the results of a stage that jit was applied and nothing fell back."""
    assert found["cpuaccel_jit_applied"] == 1
    assert found["cpuaccel_calls_optimized"] > 0
    assert found["cpuaccel_calls_original"] == 0
