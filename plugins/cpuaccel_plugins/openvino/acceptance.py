"""Which models OpenVINO is given, and in which precision it computes them."""

from collections.abc import Callable

import torch

from cpuaccel import Verdict, dtype_name
from cpuaccel_plugins.openvino.compilation import PRECISIONS


def convertible(model: Callable[..., object]) -> Verdict:
    """Require weights in a precision that OpenVINO can be asked for."""
    if others := _floating_dtypes(model) - PRECISIONS.keys():
        return Verdict.no(
            f"the model has weights in {_names(others)}, and openvino is used in "
            f"{_names(PRECISIONS)} only",
            "Cast the model with model.float() before",
        )
    return Verdict.yes()


def is_bfloat16(model: torch.nn.Module) -> bool:
    """Whether the model itself is in bfloat16, and so returns it."""
    return _floating_dtypes(model) == {torch.bfloat16}


def precision(model: torch.nn.Module, asked: torch.dtype | None) -> torch.dtype:
    """The precision to compute in: what was asked for, or else the model's own."""
    return asked or (torch.bfloat16 if is_bfloat16(model) else torch.float32)


def _floating_dtypes(model: Callable[..., object]) -> set[torch.dtype]:
    if not isinstance(model, torch.nn.Module):
        return set()
    return {p.dtype for p in model.parameters() if p.is_floating_point()}


def _names(dtypes: "set[torch.dtype] | dict[torch.dtype, str]") -> str:
    return " or ".join(sorted(map(dtype_name, dtypes)))
