"""Models for the stacks' engines, and whether the optimized ones answer as the originals do."""

from collections.abc import Callable
from pathlib import Path

import torch

import cpuaccel
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import leaves
from tests.models import Inputs, batch, both, encoder, left, right, unpadded

ROOT = Path(__file__).parents[2]
"""Where a process of its own finds this module."""

TASKS = [
    f"{model}-{task}"
    for model in ("bert", "roberta", "distilbert")
    for task in ("qa", "text", "token")
]
MODELS = [*TASKS, "vit", "wav2vec2"]

Case = tuple[int, int, Callable[[torch.Tensor], None]]
PADDED_RIGHT: list[Case] = [
    (1, 24, unpadded),
    (1, 17, right),
    (5, 31, right),
    (7, 40, unpadded),
]
PADDED_LEFT: list[Case] = [(3, 20, left), (4, 12, both)]


def model_of(name: str, **changes: object) -> torch.nn.Module:
    """A tiny model, wide enough for the engines' kernels.

    It has several labels: of two alone, both may be so near zero that bfloat16's rounding looks
    large beside them.
    """
    size: dict[str, object] = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    }
    if name.startswith("distilbert"):
        size = {"dim": 64, "n_heads": 4, "hidden_dim": 256}
    if not name.endswith("qa"):
        size["num_labels"] = 16
    return encoder(name, **{**size, **changes})


def example_of(name: str) -> Inputs:
    """Inputs with padding on the right."""
    return batch(name, 2, 24, right)


def assert_same_answers(
    fast: cpuaccel.OptimizedModel,
    model: torch.nn.Module,
    name: str,
    cases: list[Case],
    tolerance: float = 1e-4,
) -> None:
    """The answers are the original's within the tolerance, and of its type."""
    for size, length, pad in cases:
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        found = fast(**inputs)
        assert type(found) is type(expected)
        probe = Probe(
            f"{size} x {length}, {pad.__name__}", dict(inputs), expected, leaves(expected)
        )
        differences = compare(probe, found, model)
        assert differences
        assert max(d.relative for d in differences) <= tolerance, differences
