"""Precisions, their names and their default tolerances."""

from collections.abc import Iterable

import torch

from cpuaccel.errors import CpuaccelError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 5e-2}
"""Largest relative difference accepted by default, by the precision of the computation."""

STRICTEST = min(TOLERANCE.values())
"""For models in any other precision, such as float64."""


def dtype_of(dtype: "torch.dtype | str | None") -> torch.dtype | None:
    """Return the dtype of a pipeline's precision, given as a dtype or by name; None for None."""
    if dtype is None:
        return None
    parsed = _DTYPES.get(str(dtype).removeprefix("torch."))
    if parsed is None:
        raise CpuaccelError(
            f"dtype must be {' or '.join(_DTYPES)}, or None to keep the model's own, got {dtype!r}"
        )
    return parsed


def default_tolerance(dtypes: Iterable[torch.dtype]) -> float:
    """Return the largest relative difference accepted by default for these precisions."""
    return max((TOLERANCE[d] for d in dtypes if d in TOLERANCE), default=STRICTEST)


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name without ``torch.``."""
    return str(dtype).removeprefix("torch.")


def autocast_enabled() -> bool:
    """Whether CPU autocast is enabled in the caller."""
    if _DEVICE_ARGUMENT:
        return torch.is_autocast_enabled("cpu")
    return torch.is_autocast_cpu_enabled()


# From torch 2.4 on is_autocast_enabled takes a device, and is_autocast_cpu_enabled is deprecated.
_DEVICE_ARGUMENT = hasattr(torch, "get_autocast_dtype")
