"""Accuracy of the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_accuracy

TOP = 5


def score(logits: np.ndarray[Any, Any], known: Sequence[int]) -> dict[str, float]:
    """Compute the metrics.

    Args:
        logits: float32[images, classes].
        known: label of each image.

    Returns:
        ``accuracy`` and, with more than five classes, ``accuracy_top5``: the shares of the images
        whose class has the largest logit, and one of the five largest.
    """
    found, right = torch.from_numpy(logits), torch.tensor(known)
    classes = logits.shape[1]
    tops = {"accuracy": 1, **({f"accuracy_top{TOP}": TOP} if classes > TOP else {})}
    return {
        name: round(
            multiclass_accuracy(found, right, classes, top_k=top, average="micro").item(), 6
        )
        for name, top in tops.items()
    }
