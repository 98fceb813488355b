"""Pass: a linear and the residual addition after it become one operator."""

from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, dtype, same_shape
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.linear.nodes import Linear, LinearFilter, replace_by_add


def fuse_linear_add(program: Program, accepts: LinearFilter) -> None:
    """Fuse ``linear(x, w, b) + other``, in either order -> ``fused_add(x, other, w, b)``.

    Not if anything else uses the linear's result, or if the addition broadcasts, casts or scales.
    """
    for node in program.calls(aten.add.Tensor):
        first, second = node.args[0], node.args[1]
        if node.kwargs.get("alpha", 1) != 1:
            continue
        for candidate, other in ((second, first), (first, second)):
            linear = Linear.from_node(program, candidate)
            if linear is None or not isinstance(other, Node) or other is candidate:
                continue
            alone = len(linear.node.users) == 1
            alike = same_shape(linear.node, other) and dtype(linear.node) == dtype(other)
            if alone and alike and accepts(program, linear):
                replace_by_add(program, linear, node, other)
                program.graph.erase_node(linear.node)
                program.fusions["linear+add"] += 1
                break
