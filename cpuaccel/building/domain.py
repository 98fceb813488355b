"""The calls that a variant may serve: those that its proof covers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from cpuaccel.checks.axis_groups import BATCH, AxisGroups
from cpuaccel.checks.size_guards import SMALLEST, SizeGuards
from cpuaccel.model.precision import dtype_name
from cpuaccel.model.signature import Inputs, Signature


@dataclass(frozen=True)
class SizeRange:
    """The proven sizes of an axis.

    Attributes:
        smallest: the smallest size.
        largest: the largest size; None for no limit.
    """

    smallest: int
    largest: int | None

    def __contains__(self, size: int) -> bool:
        return self.smallest <= size and (self.largest is None or size <= self.largest)

    def __str__(self) -> str:
        if self.largest is None:
            return f">= {self.smallest}"
        return f"{self.smallest} to {self.largest}"


@dataclass(frozen=True)
class Domain:
    """The calls that a variant may serve, among those with its inputs' names, dtypes and ranks.

    Attributes:
        signature: the call that the variant was built for.
        groups: the axes of its inputs.
        ranges: the axis groups whose sizes may vary. All others have the example's size; if None,
            only ``frozen`` ones have: the model's Python code runs in every call.
        frozen: groups whose other sizes the optimized model does not support.
        guards: what the Python code decided by sizes; None if that is not known.
    """

    signature: Signature = field(repr=False)
    groups: AxisGroups
    ranges: Mapping[str, SizeRange] | None
    frozen: frozenset[str] = frozenset()
    guards: SizeGuards | None = field(default=None, repr=False)

    @property
    def learns(self) -> bool:
        """Whether other sizes must be compared first: what the code decides is not known."""
        return self.ranges is not None and self.guards is None

    def may_learn(self, inputs: Inputs) -> bool:
        """Whether a call's sizes may be served once they were compared."""
        sizes = self.groups.sizes(inputs)
        return (
            self.learns
            and sizes is not None
            and all(sizes[g.name] == g.size for g in self.groups if g.name in self.frozen)
        )

    def excluded(self, inputs: Inputs) -> str | None:
        """Return why a call's sizes are not in the domain, or None if they are."""
        if self.ranges is None and not self.frozen:
            return None
        sizes = self.groups.sizes(inputs)
        if sizes is None:
            return "axes that had one size in the example have different sizes"
        for group in self.groups:
            size = sizes[group.name]
            if size == group.size:
                continue
            if self.ranges is None:
                if group.name in self.frozen:
                    return f"{group.name} is {group.size}, not {size}"
            elif group.name not in self.ranges:
                return f"{group.name} is {group.size}, not {size}"
            elif size not in self.ranges[group.name]:
                return f"{group.name} must be {self.ranges[group.name]}, is {size}"
        if self.guards is not None and any(sizes[g.name] != g.size for g in self.groups):
            guard = self.guards.violated(sizes)
            if guard is not None:
                return f"the model decides otherwise at {guard.place}"
        return None

    @property
    def _deciding_places(self) -> list[str]:
        """Where the model's code decides otherwise for some sizes in the ranges, at most two."""
        places: dict[str, None] = {}
        sizes = {group.name: group.size for group in self.groups}
        for group in self.groups if self.guards is not None else ():
            for size in (group.size + 1, 2 * group.size, 8 * group.size, max(1, group.size // 2)):
                if size in (self.ranges or {}).get(group.name, ()):
                    guard = self.guards and self.guards.violated({**sizes, group.name: size})
                    places |= {guard.place: None} if guard else {}
        return list(places)[:2]

    def __str__(self) -> str:
        names: dict[str, dict[int, str]] = {}
        for group in self.groups:
            fixed = group.name not in (self.ranges or ())
            if self.ranges is None:
                fixed = group.name in self.frozen
            for name, axis in group.axes:
                names.setdefault(name, {})[axis] = str(group.size) if fixed else group.name
        described = [
            f"{name}: {dtype_name(value.dtype)}[{', '.join(axes[i] for i in sorted(axes))}]"
            if isinstance(value, torch.Tensor) and (axes := names.get(name, {})) is not None
            else f"{name}={value!r}"
            for name, value in self.signature.inputs.items()
        ]
        if self.ranges is None:
            sizes = "the model's Python code runs in each call"
        else:
            sizes = ", ".join(f"{name} {found}" for name, found in self.ranges.items())
            if self.learns:
                sizes = "other sizes after a comparison with the original"
            if self._deciding_places:
                sizes += f", as far as {' and '.join(self._deciding_places)} decides the same"
        return f"{', '.join(described)}" + (f"; {sizes}" if sizes else "")


def find_domain(
    signature: Signature,
    groups: AxisGroups,
    *,
    captured: bool = False,
    guards: SizeGuards | None = None,
    varied: Mapping[str, frozenset[int]] = MappingProxyType({}),
    frozen: frozenset[str] = frozenset(),
) -> Domain:
    """Derive a domain from what was analysed and what was compared.

    Args:
        signature: the call that the variant was built for.
        groups: the axes of its inputs.
        captured: whether the variant runs a graph instead of the model's Python code.
        guards: what the Python code decided by sizes.
        varied: for each group the sizes besides the example's that were compared and agreed.
        frozen: groups whose other sizes were compared and differed.
    """
    if not captured:
        return Domain(signature, groups, None, frozen)
    ranges: dict[str, SizeRange] = {}
    for group in groups if guards is not None else ():
        compared = {*varied.get(group.name, ()), group.size}
        if len(compared) > 1:
            largest = max(compared)
            unlimited = group.name == BATCH or largest > group.size
            ranges[group.name] = SizeRange(
                1 if 1 in compared else SMALLEST, None if unlimited else largest
            )
    return Domain(signature, groups, ranges, frozen, guards)
