"""Comparing outputs, on real tokens only."""

import math
from collections.abc import Callable, Iterable

import torch

from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import PLAIN, constants, leaves
from cpuaccel.model.signature import Inputs, real_tokens, tensors_of
from cpuaccel.report import Difference

SERIAL = 2**15 - 1
"""Number of elements up to which torch sums in the calling thread."""

COARSE = 0.1
"""Tolerance from which a few hidden states may differ by more: that of 8 bits, not of bfloat16."""

HIDDEN_STATES = "last_hidden_state"
"""The output that further layers read, under Transformers' name."""

SPARED = 256
"""Of this many positions of a row, one may."""

_EQUAL = 0.0, 0.0
_DIFFERENT = math.inf, math.inf


def compare(
    probe: Probe,
    candidate: object,
    original: Callable[..., object],
    tolerance: float = 0.0,
) -> list[Difference]:
    """Compare an output with the original's, tensor by tensor; padding is ignored.

    A difference is infinite where shapes, integers, booleans or Python values differ, or where
    only one of the two is NaN or infinite. ``original`` maps samples to frames in audio models.

    With a ``tolerance`` of at least ``COARSE`` a few positions of the last hidden states of long
    rows are spared; of no other output. There are some on which rounding decides, also that of
    bfloat16: in Whisper's encoder, whether one of 1,500 frames is one of those that others attend
    to when there is nothing to hear.
    """
    flat = leaves(candidate)
    expected_values, values = constants(probe.output), constants(candidate)
    if _paths(flat) != _paths(probe.reference) or _paths(values) != _paths(expected_values):
        return [Difference(probe.name, "output", *_DIFFERENT)]
    return [
        *(
            Difference(
                probe.name,
                path,
                *_distance(
                    probe.inputs,
                    expected,
                    leaf.tensor,
                    original,
                    spares=tolerance >= COARSE and path == HIDDEN_STATES,
                ),
            )
            for (path, expected), leaf in zip(probe.reference, flat)
        ),
        *(
            Difference(probe.name, path, *_DIFFERENT)
            for (path, expected), (_, value) in zip(expected_values, values)
            if isinstance(expected, PLAIN) and not _is_same(expected, value)
        ),
    ]


def written_differences(
    probe: Probe, inputs: Inputs, original: Callable[..., object]
) -> list[Difference]:
    """Compare the inputs that the original changed with those that the candidate changed."""
    used = tensors_of(inputs)
    return [
        Difference(
            probe.name, f"input {name}", *_distance(probe.inputs, expected, used[name], original)
        )
        for name, expected in tensors_of(probe.written).items()
    ]


def has_nonfinite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether any floating-point tensor has a NaN or an infinity."""
    for tensor in tensors:
        if not tensor.is_floating_point():
            continue
        dense = _dense(tensor)
        # In parts: waking torch's threads after an engine with its own takes longer than the sum.
        for part in (dense,) if dense.numel() <= SERIAL else _parts(dense):
            # A sum is finite only if all elements are, so most tensors need only the sum.
            if not math.isfinite(part.sum().item()) and not bool(part.isfinite().all()):
                return True
    return False


def _paths(members: Iterable[tuple[str, object]]) -> list[str]:
    return [path for path, _ in members]


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _parts(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    parts: tuple[torch.Tensor, ...] = tensor.reshape(-1).split(SERIAL)  # type: ignore[no-untyped-call]
    return parts


def _distance(
    inputs: Inputs,
    expected: torch.Tensor,
    candidate: torch.Tensor,
    original: Callable[..., object],
    *,
    spares: bool = False,
) -> tuple[float, float]:
    """Return the largest absolute difference, and its ratio to the largest magnitude."""
    if candidate.shape != expected.shape or candidate.layout is not expected.layout:
        return _DIFFERENT
    expected, candidate = _dense(expected), _dense(candidate)
    mask = _real_tokens(inputs, expected, original)
    if mask is not None:
        expected, candidate = expected[mask], candidate[mask]
    if not expected.is_floating_point():
        return _EQUAL if torch.equal(expected, candidate.to(expected.dtype)) else _DIFFERENT
    expected, candidate = expected.double(), candidate.double()
    finite = expected.isfinite()
    if not torch.equal(finite, candidate.isfinite()):
        return _DIFFERENT
    if not torch.equal(expected[~finite].nan_to_num(), candidate[~finite].nan_to_num()):
        return _DIFFERENT
    if not bool(finite.any()):
        return _EQUAL
    differences = (expected - candidate).abs()
    absolute = float(differences[finite].max())
    magnitude = max(float(expected[finite].abs().max()), torch.finfo(torch.float32).tiny)
    if spares and absolute <= magnitude and mask is None and expected.dim() == 3:
        by_position = differences.nan_to_num(0).amax(-1)  # shape (rows, positions)
        spared = by_position.shape[1] // SPARED
        absolute = float(by_position.topk(spared + 1).values[:, -1].max())
    return absolute, absolute / magnitude


def _real_tokens(
    inputs: Inputs, output: torch.Tensor, original: Callable[..., object]
) -> torch.Tensor | None:
    """Return a boolean mask of the first two axes of an output; None if all of it is real."""
    mask = real_tokens(inputs)
    if mask is None or output.dim() < 2:
        return None
    if output.shape[:2] == mask.shape:
        return mask
    # Audio: the mask is over samples and the output over frames; the model converts the mask.
    frames = getattr(original, "_get_feature_vector_attention_mask", None)
    if frames is None or output.dim() < 3 or output.shape[0] != mask.shape[0]:
        return None
    real = frames(output.shape[1], mask.long())
    assert isinstance(real, torch.Tensor)
    return real.bool()
