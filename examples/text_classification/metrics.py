"""Metrics of classes and of regressions."""

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
"""Metrics by their names in GLUE: functions of the predictions, the labels, the number of classes
and the positive class."""


def score(
    metrics: Sequence[str], found: Array, known: Array, classes: int, positive: int
) -> dict[str, float]:
    """Compute the metrics.

    Args:
        metrics: names in ``METRICS``.
        found: int64[rows] predicted classes, or float32[rows] values of a regression.
        known: labels of the same dtype and shape.
        classes: number of classes.
        positive: the positive class of F1.

    Returns:
        Each metric, from -1 or 0 to 1.
    """
    tensors = torch.from_numpy(found), torch.from_numpy(known)
    return {name: round(METRICS[name](*tensors, classes, positive).item(), 6) for name in metrics}
