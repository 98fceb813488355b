"""Which linears there are to bring to 8 bits."""

from collections.abc import Sequence

import torch

from cpuaccel import Signature
from cpuaccel_plugins.aten_graph.capture import capture
from cpuaccel_plugins.aten_graph.cleanup import clean
from cpuaccel_plugins.int8.options import Kind
from cpuaccel_plugins.int8.selection import select


def linears_of(
    model: torch.nn.Module, signature: Signature, float_kinds: Sequence[Kind]
) -> list[str]:
    """Names of the linears that could be brought to 8 bits, in the order of their use."""
    program = capture(model, signature)
    clean(program)
    selection = select(program, model, float_names=(), float_kinds=float_kinds, speed=None)
    return list(dict.fromkeys(names[0] for names in selection.chosen.values()))
