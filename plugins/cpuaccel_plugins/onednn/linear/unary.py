"""Passes: a linear and the activation after it become one operator; so do linears without one."""

from cpuaccel_plugins.aten_graph.nodes import aten
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.linear.nodes import Linear, LinearFilter, replace_by_unary
from cpuaccel_plugins.onednn.operators import ACTIVATIONS, NO_ACTIVATION, Activation


def fuse_linear_unary(program: Program, accepts: LinearFilter) -> None:
    """Fuse ``activation(linear(x, w, b))`` -> ``fused_unary(x, w, b, activation)``.

    Not if anything else uses the linear's result.
    """
    for node in program.calls(*ACTIVATIONS):
        linear = Linear.from_node(program, node.args[0])
        if linear is None or len(linear.node.users) > 1 or not accepts(program, linear):
            continue
        activation = Activation.from_node(node)
        replace_by_unary(program, linear, node, activation)
        program.graph.erase_node(linear.node)
        program.fusions[f"linear+{activation.label}"] += 1


def replace_remaining_linears(program: Program, accepts: LinearFilter) -> None:
    """Replace ``linear(x, w, b)`` -> ``fused_unary(x, w, b, none)``, or record why not."""
    for node in program.calls(aten.linear.default):
        linear = Linear.from_node(program, node)
        if linear is None:
            program.left_alone["linears without constant weights of a usable dtype"] += 1
        elif accepts(program, linear):
            replace_by_unary(program, linear, node, NO_ACTIVATION)
        else:
            program.left_alone["linears that the stock operator runs as fast"] += 1
