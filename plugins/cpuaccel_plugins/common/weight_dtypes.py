"""The floating dtypes of a model's weights, which many engines restrict."""

from collections.abc import Callable, Collection, Iterable

import torch

from cpuaccel import Verdict, dtype_name


def weight_dtypes(model: Callable[..., object]) -> set[torch.dtype]:
    """The dtypes of the floating parameters; empty where the model is not a module."""
    if not isinstance(model, torch.nn.Module):
        return set()
    return {p.dtype for p in model.parameters() if p.is_floating_point()}


def require_weight_dtypes(
    model: Callable[..., object], supported: Collection[torch.dtype], backend: str
) -> Verdict:
    """Refuse a model with weights in any other floating dtype than the supported ones."""
    names = dtype_names(supported)
    if others := weight_dtypes(model).difference(supported):
        return Verdict.no(
            f"the model has weights in {dtype_names(others)}, and {backend} supports {names} only",
            f"Use weights in {names}, or leave {backend} out",
        )
    return Verdict.yes()


def dtype_names(dtypes: Iterable[torch.dtype]) -> str:
    """Names joined by "or", such as ``bfloat16 or float32``."""
    return " or ".join(sorted(map(dtype_name, dtypes)))
