"""Small models with distinct outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tests.models import encoder


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
