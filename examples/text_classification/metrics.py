"""How good the classes, or the numbers of a regression, are."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_matthews_corrcoef,
)
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

Array = np.ndarray[Any, Any]
Metric = Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]

METRICS: dict[str, Metric] = {
    "accuracy": lambda found, known, classes, _: multiclass_accuracy(
        found, known, classes, average="micro"
    ),
    "f1": lambda found, known, _, positive: binary_f1_score(found == positive, known == positive),
    "matthews_correlation": lambda found, known, classes, _: multiclass_matthews_corrcoef(
        found, known, classes
    ),
    "pearson": lambda found, known, _, __: pearson_corrcoef(found, known),
    "spearmanr": lambda found, known, _, __: spearman_corrcoef(found, known),
}
"""By the names that GLUE's have: of what was found and what is known, for so many classes, of
which one is the positive one."""


def score(
    metrics: Sequence[str], found: Array, known: Array, classes: int, positive: int
) -> dict[str, float]:
    """Compare what a model found with what is known.

    Args:
        metrics: names in ``METRICS``.
        found: int64[rows] of classes, or float32[rows] of a regression.
        known: the same type and shape.
        classes: how many the model has.
        positive: the class that F1 is about.

    Returns:
        Each metric, from -1 or 0 to 1.
    """
    tensors = torch.from_numpy(found), torch.from_numpy(known)
    return {name: round(METRICS[name](*tensors, classes, positive).item(), 6) for name in metrics}
