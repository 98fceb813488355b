"""Which linears are computed in 8 bits, and why the others are not."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch.fx import Node

from cpuaccel import BackendError
from cpuaccel_plugins.aten_graph.program import Program, aten
from cpuaccel_plugins.int8.arithmetic import MOST_INPUTS
from cpuaccel_plugins.int8.kinds import kinds, names_of
from cpuaccel_plugins.int8.options import Kind
from cpuaccel_plugins.int8.speed import Speed
from cpuaccel_plugins.int8.spread import matrix_of
from cpuaccel_plugins.onednn.linear.linears import Linear

REGEX = "re:"
"""What a pattern begins with that is a regular expression."""


@dataclass
class Selection:
    """The linears of one graph, divided.

    Attributes:
        chosen: those to compute in 8 bits, each with its weight's names.
        kept: names of the others, by the reason.
    """

    chosen: dict[Node, tuple[str, ...]] = field(default_factory=dict)
    kept: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def takes(self, program: Program, linear: Linear) -> bool:
        """Whether a linear is one to compute in 8 bits."""
        return linear.node in self.chosen

    def keep(self, patterns: Sequence[str], reason: str) -> None:
        """Leave those in float that any of these patterns names."""
        for node, names in list(self.chosen.items()):
            if matches(names, patterns):
                self.kept[reason].append(self.chosen.pop(node)[0])


def select(
    program: Program,
    model: torch.nn.Module,
    *,
    float_names: Sequence[str],
    float_kinds: Sequence[Kind],
    speed: Speed | None,
) -> Selection:
    """Divide the linears of a graph in which none is fused yet.

    Args:
        program: the graph.
        model: what it was captured of: knows the names.
        float_names: patterns of linears to leave in float.
        float_kinds: kinds to leave in float.
        speed: leaves in float what is not faster in 8 bits; None leaves nothing for that.

    Raises:
        BackendError: a pattern names no linear of the model.
    """
    names, found = names_of(model), Selection()
    kind_of = kinds(program)
    for node in program.calls(aten.linear.default):
        linear = Linear.of(program, node)
        if linear is None:
            found.kept["weights are no constants of a usable dtype"].append(node.name)
            continue
        weight = program.held(linear.weight)
        known = names.get(matrix_of(weight), (str(linear.weight.target),))
        found.chosen[node] = known
        if kind_of[node] in float_kinds:
            found.keep(known, f"kind {kind_of[node]}")
        elif weight.shape[1] > MOST_INPUTS or not bool(weight.isfinite().all()):
            found.keep(known, "8 bits can't hold it")
    everything = [*found.chosen.values(), *((n,) for kept in found.kept.values() for n in kept)]
    _insist(float_names, everything)
    found.keep(float_names, "by name")
    if speed is not None:
        for node in list(found.chosen):
            linear = Linear.of(program, node)
            assert linear is not None
            weight = program.held(linear.weight)
            if not speed.pays(weight, linear.rows):
                found.kept["not faster in 8 bits"].append(found.chosen.pop(node)[0])
    return found


def matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a pattern names one of these: a glob on all of it, or a regex found in it."""
    return any(
        re.search(pattern.removeprefix(REGEX), name) is not None
        if pattern.startswith(REGEX)
        else fnmatchcase(name, pattern)
        for pattern in patterns
        for name in names
    )


def told(kept: Mapping[str, Sequence[str]]) -> str:
    """What was left in float and why, in one line."""
    return "; ".join(f"{len(names)} {reason}: {', '.join(names)}" for reason, names in kept.items())


def _insist(patterns: Sequence[str], names: Sequence[Sequence[str]]) -> None:
    for pattern in patterns:
        if not any(matches(known, [pattern]) for known in names):
            raise BackendError(
                f"float_names has {pattern!r}, which names none of the model's {len(names)} "
                f"linears, such as {', '.join(known[0] for known in names[:3]) or 'none'}",
                "Correct the pattern, or take it out",
            )
