"""Groups of axes that have one size together, such as the batch of all inputs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cpuaccel.model.signature import Inputs, Signature, tensors_of

BATCH, LENGTH = "batch", "length"


@dataclass(frozen=True)
class AxisGroup:
    """Axes of inputs that have one size.

    Attributes:
        name: ``batch``, ``length``, or an input and its axis, such as ``pixel_values[2]``.
        axes: names of inputs, each with the index of an axis.
        size: the size in the example.
    """

    name: str
    axes: tuple[tuple[str, int], ...]
    size: int


class AxisGroups(tuple[AxisGroup, ...]):
    """All axes of a signature's tensors, in groups.

    Axis 0 of the tensors that agree in it is the batch, axis 1 the length; every other axis is a
    group of its own.
    """

    @classmethod
    def from_signature(cls, signature: Signature) -> "AxisGroups":
        """Group the axes of the example inputs."""
        tensors = signature.tensor_inputs
        named = {
            **{(name, 0): BATCH for name in signature.axes.batch},
            **{(name, 1): LENGTH for name in signature.axes.length},
        }
        grouped: dict[str, list[tuple[str, int]]] = {}
        for name, tensor in tensors.items():
            for axis in range(tensor.dim()):
                group = named.get((name, axis), f"{name}[{axis}]")
                grouped.setdefault(group, []).append((name, axis))
        return cls(
            AxisGroup(name, tuple(axes), tensors[axes[0][0]].shape[axes[0][1]])
            for name, axes in grouped.items()
        )

    @property
    def example(self) -> dict[str, int]:
        """The size of each group in the example."""
        return {group.name: group.size for group in self}

    def sizes(self, inputs: Mapping[str, object]) -> dict[str, int] | None:
        """Return the size of each group in a call; None if axes of a group differ."""
        tensors = tensors_of(inputs)
        sizes: dict[str, int] = {}
        for group in self:
            found = {tensors[name].shape[axis] for name, axis in group.axes}
            if len(found) > 1:
                return None
            sizes[group.name] = found.pop()
        return sizes

    def resized(self, inputs: Inputs, sizes: Mapping[str, int]) -> Inputs:
        """Return inputs with these sizes, repeating or leaving out elements.

        The order along the batch is reversed where it changes, so that values change too.
        """
        resized = dict(inputs)
        for group in self:
            wanted = sizes.get(group.name, group.size)
            if wanted == group.size:
                continue
            for name, axis in group.axes:
                tensor = tensors_of(resized)[name]
                tensor = tensor.flip(0) if group.name == BATCH else tensor
                resized[name] = resize(tensor, axis, wanted)
        return resized

    def empty(self, inputs: Inputs, sizes: Mapping[str, "int | torch.SymInt"]) -> Inputs:
        """Return inputs whose tensors have these sizes and no values."""
        shapes: dict[str, dict[int, int | torch.SymInt]] = {}
        for group in self:
            for name, axis in group.axes:
                shapes.setdefault(name, {})[axis] = sizes[group.name]
        return {
            name: torch.empty(
                [shapes[name][axis] for axis in range(value.dim())], dtype=value.dtype
            )
            if isinstance(value, torch.Tensor)
            else value
            for name, value in inputs.items()
        }


def resize(tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Return a tensor with a size along an axis, dropping its last elements or repeating some.

    Neighbours are repeated: a mask's padding stays on its side, and sorted values stay sorted.
    """
    known = tensor.shape[axis]
    return tensor.index_select(axis, torch.arange(size) * known // max(size, known))
