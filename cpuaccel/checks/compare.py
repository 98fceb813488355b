"""Comparing outputs, on real tokens only."""

import math
from collections.abc import Callable, Iterable

import torch

from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import Leaf, leaves
from cpuaccel.model.signature import MASK, Inputs
from cpuaccel.report import Difference

SERIAL = 2**15 - 1
"""Number of elements up to which torch sums in the calling thread."""


def compare(probe: Probe, candidate: object, original: Callable[..., object]) -> list[Difference]:
    """Compare an output with the original's; padding is ignored.

    Args:
        probe: the inputs and the original's output.
        candidate: the output of the optimized model.
        original: maps samples to frames in audio models.

    Returns:
        One difference per tensor; infinite where shapes, integers or booleans differ, or where
        only one of the two is NaN or infinite.
    """
    found = leaves(candidate)
    if [leaf.path for leaf in found] != [leaf.path for leaf in probe.reference]:
        return [Difference(probe.name, "output", float("inf"), float("inf"))]
    return [
        _difference(probe, mine, theirs.tensor, original)
        for mine, theirs in zip(probe.reference, found)
    ]


def has_nonfinite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether any floating tensor holds a NaN or an infinity."""
    return any(
        # A sum is finite only if every element is, so most tensors need no second look. In parts:
        # waking torch's threads after an engine with its own threads takes longer than the sum.
        tensor.is_floating_point()
        and not all(
            math.isfinite(part.sum().item()) or bool(part.isfinite().all())
            for part in _parts(tensor)
        )
        for tensor in tensors
    )


def _parts(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    if tensor.numel() <= SERIAL:
        return (tensor,)
    parts: tuple[torch.Tensor, ...] = tensor.reshape(-1).split(SERIAL)  # type: ignore[no-untyped-call]
    return parts


def _difference(
    probe: Probe, reference: Leaf, candidate: torch.Tensor, original: Callable[..., object]
) -> Difference:
    infinite = Difference(probe.name, reference.path, float("inf"), float("inf"))
    expected = reference.tensor
    if candidate.shape != expected.shape:
        return infinite
    mask = _real_tokens(probe.inputs, expected, original)
    if mask is not None:
        expected, candidate = expected[mask], candidate[mask]
    if expected.numel() == 0:
        return Difference(probe.name, reference.path, 0.0, 0.0)
    if not expected.is_floating_point():
        same = torch.equal(expected, candidate.to(expected.dtype))
        return Difference(probe.name, reference.path, 0.0, 0.0) if same else infinite
    expected, candidate = expected.double(), candidate.double()
    finite = expected.isfinite()
    if not torch.equal(finite, candidate.isfinite()):
        return infinite
    if not torch.equal(expected[~finite].nan_to_num(), candidate[~finite].nan_to_num()):
        return infinite
    expected, candidate = expected[finite], candidate[finite]
    if expected.numel() == 0:
        return Difference(probe.name, reference.path, 0.0, 0.0)
    absolute = float((expected - candidate).abs().max())
    magnitude = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    return Difference(probe.name, reference.path, absolute, absolute / magnitude)


def _real_tokens(
    inputs: Inputs, output: torch.Tensor, original: Callable[..., object]
) -> torch.Tensor | None:
    mask = inputs.get(MASK)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or output.dim() < 2:
        return None
    if output.shape[:2] == mask.shape:
        return mask.bool()
    # Audio: the mask counts samples and the output has frames; the model converts one to another.
    frames = getattr(original, "_get_feature_vector_attention_mask", None)
    if frames is None or output.dim() < 3 or output.shape[0] != mask.shape[0]:
        return None
    found = frames(output.shape[1], mask)
    assert isinstance(found, torch.Tensor)
    return found.bool()
