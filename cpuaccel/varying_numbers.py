"""Python numbers among the inputs that vary: a variant gets them as tensors of no dimension."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch

from cpuaccel.model.signature import Inputs


@dataclass
class _Numbers:
    """The Python numbers of one way of calling.

    Attributes:
        first: their values in the first call.
        varying: names of those that had another value since.
        refused: names of those that a variant does not take as tensors.
    """

    first: Mapping[str, int | float]
    varying: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


class VaryingNumbers:
    """Finds the Python numbers that differ between calls of one way.

    A Python value is exact in a variant's domain, so that each value needs a variant of its own.
    """

    def __init__(self) -> None:
        self._by_way: dict[tuple[object, ...], _Numbers] = {}

    def names(self, plan: int, inputs: Inputs) -> tuple[str, ...]:
        """Return the names of the numbers that varied until this call, and may be tensors.

        Args:
            plan: the index of the plan that serves the call.
            inputs: the call's.
        """
        numbers = {n: v for n, v in inputs.items() if type(v) in (int, float)}
        if not numbers:
            return ()
        known = self._by_way.setdefault(_way(plan, inputs), _Numbers(numbers))  # type: ignore[arg-type]
        known.varying |= {name for name, value in numbers.items() if value != known.first[name]}
        return tuple(name for name in numbers if name in known.varying - known.refused)

    def refuse(self, plan: int, inputs: Inputs, names: Collection[str]) -> None:
        """Leave numbers exact, each value with a variant of its own."""
        self._by_way[_way(plan, inputs)].refused.update(names)


def number_class(value: int | float) -> tuple[int, int]:
    """Return the sign and the power of two of a number."""
    return (value > 0) - (value < 0), math.frexp(value)[1]


def _way(plan: int, inputs: Inputs) -> tuple[object, ...]:
    """A way of calling without the values of its numbers."""
    parts: list[object] = [plan]
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            parts += (name, value.dtype, value.dim())
        else:
            parts += (name, type(value), None if type(value) in (int, float) else value)
    return tuple(parts)
