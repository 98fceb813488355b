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
        values: the least and the largest value of inputs, where the variant was calibrated.
    """

    signature: Signature = field(repr=False)
    groups: AxisGroups
    ranges: Mapping[str, SizeRange] | None
    frozen: frozenset[str] = frozenset()
    guards: SizeGuards | None = field(default=None, repr=False)
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)

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
            size, allowed = sizes[group.name], self._range(group.name)
            if size == group.size:
                continue
            if allowed is None:
                return f"{group.name} is {group.size}, not {size}"
            if size not in allowed:
                return f"{group.name} must be {allowed}, is {size}"
        if self.guards is not None and sizes != self.groups.example:
            guard = self.guards.violated(sizes)
            if guard is not None:
                return f"the model decides otherwise at {guard.place}"
        return None

    def excluded_by_values(self, inputs: Inputs) -> str | None:
        """Return which input has values that are not in the domain, or None if all are."""
        for name, (least, largest) in self.values.items():
            value = inputs[name]
            assert isinstance(value, (torch.Tensor, int, float))
            low, high = torch.aminmax(value) if isinstance(value, torch.Tensor) else (value, value)
            if not (least <= low and high <= largest):  # NaN neither
                return (
                    f"{name} has values outside of {least:.3g} to {largest:.3g}, for which "
                    "the variant was calibrated"
                )
        return None

    def _range(self, group: str) -> SizeRange | None:
        """Return the sizes that an axis group may have, None for the example's only."""
        if self.ranges is not None:
            return self.ranges.get(group)
        return None if group in self.frozen else SizeRange(0, None)

    def _deciding_places(self) -> list[str]:
        """Find where the model's code decides otherwise for sizes in the ranges, at most two."""
        if self.guards is None:
            return []
        example = self.groups.example
        others = [
            {**example, name: size}
            for name, allowed in (self.ranges or {}).items()
            for size in _other_sizes(example[name])
            if size in allowed
        ]
        guards = map(self.guards.violated, others)
        return list(dict.fromkeys(guard.place for guard in guards if guard is not None))[:2]

    def __str__(self) -> str:
        names: dict[str, dict[int, str]] = {}
        for group in self.groups:
            shown = str(group.size) if self._range(group.name) is None else group.name
            for name, axis in group.axes:
                names.setdefault(name, {})[axis] = shown
        shapes = {n: ", ".join(axes[i] for i in sorted(axes)) for n, axes in names.items()}
        described = [
            f"{name}: {dtype_name(value.dtype)}[{shapes.get(name, '')}]"
            if isinstance(value, torch.Tensor)
            else f"{name}={value!r}"
            for name, value in self.signature.inputs.items()
        ]
        if self.ranges is None:
            sizes = "the model's Python code runs in each call"
        else:
            sizes = ", ".join(f"{name} {found}" for name, found in self.ranges.items())
            if self.learns:
                sizes = "other sizes after a comparison with the original"
            if places := self._deciding_places():
                sizes += f", as far as {' and '.join(places)} decides the same"
        values = [f"{n} from {low:.3g} to {high:.3g}" for n, (low, high) in self.values.items()]
        return "; ".join(filter(None, [", ".join(described), sizes, ", ".join(values)]))


def _other_sizes(size: int) -> tuple[int, ...]:
    return max(1, size // 2), size + 1, 2 * size, 8 * size


def find_domain(
    signature: Signature,
    groups: AxisGroups,
    *,
    captured: bool = False,
    guards: SizeGuards | None = None,
    varied: Mapping[str, frozenset[int]] = MappingProxyType({}),
    frozen: frozenset[str] = frozenset(),
    values: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> Domain:
    """Derive a domain from what was analysed and what was compared.

    Args:
        signature: the call that the variant was built for.
        groups: the axes of its inputs.
        captured: whether the variant runs a graph instead of the model's Python code.
        guards: what the Python code decided by sizes.
        varied: for each group the sizes besides the example's that were compared and agreed.
        frozen: groups whose other sizes were compared and differed.
        values: the least and the largest value of inputs, where the variant was calibrated.
    """
    if not captured:
        return Domain(signature, groups, None, frozen, values=values)
    ranges: dict[str, SizeRange] = {}
    for group in groups if guards is not None else ():
        compared = {*varied.get(group.name, ()), group.size}
        if len(compared) > 1:
            largest = max(compared)
            unlimited = group.name == BATCH or largest > group.size
            ranges[group.name] = SizeRange(
                1 if 1 in compared else SMALLEST, None if unlimited else largest
            )
    return Domain(signature, groups, ranges, frozen, guards, values)
