"""Models and inputs for the engines of one stack."""

from collections.abc import Callable

import torch

import cpuaccel
from tests.models import Inputs, batch, both, encoder, left, right, unpadded
from tests.plugins.outputs import assert_outputs_match

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

    It has several labels: two alone can both be so near zero that bfloat16's rounding is large
    relative to them.
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


def assert_cases_match(
    fast: cpuaccel.OptimizedModel,
    model: torch.nn.Module,
    name: str,
    cases: list[Case],
    tolerance: float = 1e-4,
) -> None:
    """In all cases the output has the original's type and values, within the tolerance."""
    for size, length, pad in cases:
        assert_outputs_match(fast, model, batch(name, size, length, pad), tolerance)
