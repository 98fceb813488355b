"""Pass: a linear, and the activation or addition after it, become one operator."""

from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, is_call
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.linear.nodes import Linear, LinearFilter
from cpuaccel_plugins.onednn.operators import ACTIVATIONS, Activation, added_to, only_user


def fuse_linears(program: Program, accepts: LinearFilter) -> None:
    """Replace linears by oneDNN's, each fused with what follows, or record why not.

    ``activation(linear(x, w, b))`` -> ``fused_unary(x, w, b, activation)``,
    ``linear(x, w, b) + other``, in either order -> ``fused_add(x, other, w, b)``. Neither if
    anything else uses the linear's result, or if the addition broadcasts, casts or scales.
    """
    for node in program.calls(aten.linear.default):
        linear = Linear.from_stock(program, node)
        if linear is None:
            program.left_alone["linears without constant weights of a usable dtype"] += 1
        elif accepts(program, linear):
            fuse_linear(program, node, linear)
        else:
            program.left_alone["linears that the stock operator runs as fast"] += 1


def fuse_linear(program: Program, node: Node, linear: Linear) -> None:
    """Replace one stock linear, and the activation or addition after it."""
    last, user = node, only_user(node)
    if is_call(user, *ACTIVATIONS):
        last, activation = user, Activation.from_node(user)
        linear = linear._replace(activation=activation)
        program.fusions[f"linear+{activation.label}"] += 1
    elif user is not None and (other := added_to(node, user)) is not None:
        last, linear = user, linear._replace(other=other)
        program.fusions["linear+add"] += 1
    with program.graph.inserting_before(last):
        program.replace(last, linear.add_call(program))
    if last is not node:
        program.graph.erase_node(node)
