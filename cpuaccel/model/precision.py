"""The two precisions a pipeline can have, and their names."""

from collections.abc import Iterable

import torch

from cpuaccel.errors import CpuaccelError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 5e-2}
"""Largest relative difference accepted by default, by the precision that is computed in."""

STRICTEST = min(TOLERANCE.values())
"""For models that compute in anything else, such as float64."""


def dtype_of(dtype: "torch.dtype | str | None") -> torch.dtype | None:
    """The precision that a name or a dtype means; None stays None.

    Raises:
        CpuaccelError: it is neither float32 nor bfloat16.
    """
    if dtype is None:
        return None
    found = _DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise CpuaccelError(
            f"dtype={dtype!r} was asked for, but a pipeline computes in {' or '.join(_DTYPES)}. "
            "Pass one of these, or None to keep the model's own"
        )
    return found


def default_tolerance(dtypes: Iterable[torch.dtype]) -> float:
    """The relative difference accepted by default of what computes in these precisions."""
    return max((TOLERANCE[d] for d in dtypes if d in TOLERANCE), default=STRICTEST)


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype's name without ``torch.``."""
    return str(dtype).removeprefix("torch.")


def autocast_enabled() -> bool:
    """Whether the caller is inside ``torch.autocast`` for the CPU."""
    if _DEVICE_ARGUMENT:
        return torch.is_autocast_enabled("cpu")
    return torch.is_autocast_cpu_enabled()


# is_autocast_enabled takes a device from torch 2.4 on; the older name is deprecated there.
_DEVICE_ARGUMENT = hasattr(torch, "get_autocast_dtype")
