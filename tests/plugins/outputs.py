"""Comparing the outputs of an optimized model with the original's."""

from collections.abc import Mapping
from typing import Any

import torch

import cpuaccel
from cpuaccel.testing.outputs import MASK, assert_same_output
from cpuaccel.testing.subject import TOLERANCE


def assert_outputs_match(
    fast: cpuaccel.OptimizedModel,
    model: torch.nn.Module,
    inputs: Mapping[str, Any],
    tolerance: float = TOLERANCE["float32"],
) -> None:
    """The output has the original's type and values; padding is ignored."""
    with torch.no_grad():
        expected = model(**inputs)
    output = fast(**inputs)
    assert type(output) is type(expected)
    if isinstance(expected, Mapping):
        assert list(output) == list(expected)
    frames = getattr(model, "_get_feature_vector_attention_mask", None)
    if frames is not None and MASK in inputs:  # audio: the mask has samples, the output frames
        inputs = {**inputs, MASK: frames(expected[0].shape[1], inputs[MASK])}
    shapes = {n: tuple(v.shape) for n, v in inputs.items() if isinstance(v, torch.Tensor)}
    assert_same_output(output, expected, inputs, tolerance, str(shapes))
