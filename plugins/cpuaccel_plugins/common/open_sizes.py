"""Arguments with which an exporter leaves batch and length dynamic."""

from collections.abc import Callable
from typing import TypeVar

import torch

from cpuaccel import Signature

Exported = TypeVar("Exported")


def open_axes(signature: Signature) -> dict[str, dict[int, object]]:
    """Let the exporter decide for each batch and length axis whether it is dynamic.

    cpuaccel finds the axes that it fixes by comparing outputs.
    """
    from torch.export import Dim

    return {
        name: {
            axis: Dim.AUTO
            for axis, names in enumerate((signature.axes.batch, signature.axes.length))
            if name in names
        }
        for name in signature.tensors
    }


def export_open(
    export: Callable[[dict[str, torch.Tensor]], Exported],
    is_fixed: Callable[[Exported, str, int], bool],
    model: torch.nn.Module,
    signature: Signature,
) -> Exported:
    """Export with at least two rows and tokens, because exporters fix a size of one.

    Where the model does not take them, or its code fixes them, one row or token stays.

    Args:
        export: exports the model with an example.
        is_fixed: whether the export has fixed this axis of this input.
        model: takes the tensors by name.
        signature: has the caller's example.

    Raises:
        Exception: what ``export`` raises on an example that the model takes.
    """
    tried: list[tuple[str, int]] = []
    for number in (2, 1):  # batch and length, then batch only: axis 1 may be channels
        axes = _axes_of_one(signature, number)
        if not axes or axes == tried:
            break
        tried = axes
        example = _grown(signature, axes)
        try:
            exported = export(example)
        except Exception:
            if _takes(model, example):
                raise
            continue
        if not any(is_fixed(exported, name, axis) for name, axis in axes):
            return exported
    return export(dict(signature.tensor_inputs))


def _axes_of_one(signature: Signature, number: int) -> list[tuple[str, int]]:
    axes = (signature.axes.batch, signature.axes.length)[:number]
    return [
        (name, axis)
        for axis, names in enumerate(axes)
        for name in names
        if signature.tensor_inputs[name].shape[axis] == 1
    ]


def _grown(signature: Signature, axes: list[tuple[str, int]]) -> dict[str, torch.Tensor]:
    example = dict(signature.tensor_inputs)
    for name, axis in axes:
        example[name] = torch.cat([example[name]] * 2, axis)
    return example


def _takes(model: torch.nn.Module, example: dict[str, torch.Tensor]) -> bool:
    try:
        with torch.no_grad():
            model(**{name: tensor.clone() for name, tensor in example.items()})
    except Exception:
        return False
    return True


def fixed_size(size: object) -> int | None:
    """The size of an axis that an export has fixed, None if it is dynamic."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    # A size that the model's code fixes stays a SymInt, whose expression is a number.
    is_fixed = isinstance(size, (int, torch.SymInt)) and is_concrete_int(size)
    return int(size) if is_fixed else None  # type: ignore[call-overload]
