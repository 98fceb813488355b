"""Pass: a linear and the residual addition that alone uses it become one operator."""

from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, dtype, same_shape
from cpuaccel_plugins.onednn.linear.choice import Takes
from cpuaccel_plugins.onednn.linear.linears import Linear, fused_add


def fuse_linear_add(program: Program, choice: Takes) -> None:
    """Fuse ``linear(x) + other`` and ``other + linear(x)``.

    Not where anything else uses the linear's result, where the addition broadcasts, casts or
    scales one side, and not where the linear is left alone.
    """
    for node in program.calls(aten.add.Tensor):
        first, second = node.args[0], node.args[1]
        if node.kwargs.get("alpha", 1) != 1:
            continue
        for candidate, other in ((second, first), (first, second)):
            linear = Linear.of(program, candidate)
            if linear is None or not isinstance(other, Node) or other is candidate:
                continue
            alone = len(linear.node.users) == 1
            alike = same_shape(linear.node, other) and dtype(linear.node) == dtype(other)
            if alone and alike and choice.takes(program, linear):
                fused_add(program, linear, node, other)
                program.graph.erase_node(linear.node)
                program.fusions["linear+add"] += 1
                break
