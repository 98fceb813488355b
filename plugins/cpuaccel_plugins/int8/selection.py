"""Which linears are computed in 8 bits, and why the others are not."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch.fx import Node

from cpuaccel import BackendError, Signature
from cpuaccel_plugins.aten_graph.capture import capture
from cpuaccel_plugins.aten_graph.cleanup import remove_redundant
from cpuaccel_plugins.aten_graph.nodes import aten
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.int8.arithmetic import MOST_INPUTS
from cpuaccel_plugins.int8.choice import Int8Choice
from cpuaccel_plugins.int8.kinds import linear_kinds, module_names
from cpuaccel_plugins.int8.options import Kind
from cpuaccel_plugins.int8.outliers import weight_key
from cpuaccel_plugins.onednn.linear.nodes import Linear

REGEX = "re:"
"""Prefix of patterns that are regular expressions."""


@dataclass
class Selection:
    """The linears of a graph: those for 8 bits, and the others."""

    chosen: dict[Node, tuple[str, ...]] = field(default_factory=dict)
    """Linears for 8 bits, with the names of the modules that share the weight."""
    in_float: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names of the others, by reason."""

    def names(self) -> list[str]:
        """The chosen linears, each once under its first name, in the order of their use."""
        return list(dict.fromkeys(names[0] for names in self.chosen.values()))

    def leave_in_float(self, patterns: Sequence[str], reason: str) -> None:
        """Leave in float the linears that any of these patterns matches."""
        for node, names in list(self.chosen.items()):
            if matches(names, patterns):
                self.in_float[reason].append(self.chosen.pop(node)[0])


def select(
    program: Program,
    model: torch.nn.Module,
    choice: Int8Choice,
    *,
    float_names: Sequence[str] = (),
    float_kinds: Sequence[Kind] = (),
) -> Selection:
    """Select among a graph's linears, none fused yet; ``model``, its source, has the names."""
    names, selection = module_names(model), Selection()
    kinds = linear_kinds(program)
    for node in program.calls(aten.linear.default):
        linear = Linear.from_stock(program, node)
        if linear is None:
            selection.in_float["without constant weights of a usable dtype"].append(node.name)
            continue
        weight = program.tensor(linear.weight)
        own_names = names.get(weight_key(weight), (str(linear.weight.target),))
        selection.chosen[node] = own_names
        if kinds[node] in float_kinds:
            selection.leave_in_float(own_names, f"kind {kinds[node]}")
        elif weight.shape[1] > MOST_INPUTS or not bool(weight.isfinite().all()):
            selection.leave_in_float(own_names, "not representable in 8 bits")
    left = ((name,) for names in selection.in_float.values() for name in names)
    require_matches(float_names, [*selection.chosen.values(), *left])
    selection.leave_in_float(float_names, "by name")
    for node in list(selection.chosen):
        linear = Linear.from_stock(program, node)
        assert linear is not None
        if not choice.prefers_int8(program, linear):
            selection.in_float["not faster in 8 bits"].append(selection.chosen.pop(node)[0])
    return selection


def linears_of(
    model: torch.nn.Module, signature: Signature, float_kinds: Sequence[Kind]
) -> list[str]:
    """Names of the linears that can be computed in 8 bits, in the order of their use."""
    program = capture(model, signature)
    remove_redundant(program)
    return select(program, model, Int8Choice(measure=False), float_kinds=float_kinds).names()


def matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a pattern matches one of these names: a glob all of it, a regex a part of it."""
    return any(
        re.search(pattern.removeprefix(REGEX), name) is not None
        if pattern.startswith(REGEX)
        else fnmatchcase(name, pattern)
        for pattern in patterns
        for name in names
    )


def describe(in_float: Mapping[str, Sequence[str]]) -> str:
    """What was left in float and why, in one line."""
    return "; ".join(
        f"{len(names)} {reason}: {', '.join(names)}" for reason, names in in_float.items()
    )


def require_matches(
    patterns: Sequence[str], names: Sequence[Sequence[str]], option: str = "float_names"
) -> None:
    """Raise a ``BackendError`` for a pattern of an option that matches none of the names."""
    for pattern in patterns:
        if not any(matches(own_names, [pattern]) for own_names in names):
            examples = ", ".join(own_names[0] for own_names in names[:3]) or "none"
            raise BackendError(
                f"{option} has {pattern!r}, which matches none of the model's {len(names)} "
                f"linears, such as {examples}",
                "Correct or remove the pattern",
            )
