"""What the kernels need of a decoder layer that reads an encoder's output."""

import ctypes
from dataclasses import dataclass

import torch

from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.parts import runs_its_class
from cpuaccel_plugins.decoding.structures import CAttention, CFeedForward, CLayer, CProjections


@dataclass
class SourceParts:
    """The parts of one layer.

    Attributes:
        described: the structure for the kernels.
        key: computes keys of the encoder's output.
        value: computes values of it.
        index: of the layer.
        heads: of both attentions.
        head_size: likewise.
        kept: what the structure points to.
    """

    described: CLayer
    key: FewRowsLinear
    value: FewRowsLinear
    index: int
    heads: int
    head_size: int
    kept: list[object]


def described_layer(
    own: tuple[CProjections, CAttention],
    source: tuple[CProjections, CAttention],
    feed_forward: CFeedForward,
) -> CLayer:
    """Describe a layer by its parts, to which the structure points."""
    return CLayer(*(ctypes.pointer(part) for part in (*own, *source, feed_forward)))


def linear_in(module: torch.nn.Module, name: str) -> FewRowsLinear:
    """A linear that the kernels compute.

    Raises:
        TypeError: it is none.
    """
    linear = module.get_submodule(name)
    if not isinstance(linear, FewRowsLinear):
        raise TypeError(f"{name} is not computed by the kernels")
    return linear


def integers_in(module: torch.nn.Module, *names: str) -> list[int]:
    """The values of attributes that are integers.

    Raises:
        TypeError: one is not an integer.
    """
    values = [getattr(module, name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, int):
            raise TypeError(f"{name} is not an integer")
    return values


def is_class_of(module: torch.nn.Module, names: frozenset[str]) -> bool:
    """Whether a module is of one of Transformers' classes with these names, without hooks in it."""
    kind = type(module)
    return (
        kind.__name__ in names
        and kind.__module__.startswith("transformers.models.")
        and all(runs_its_class(part) for part in module.modules())
    )
