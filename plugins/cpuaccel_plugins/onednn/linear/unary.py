"""Pass: a linear and the activation that alone uses it become one operator."""

from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, argument, aten, is_call
from cpuaccel_plugins.onednn.linear.choice import Takes
from cpuaccel_plugins.onednn.linear.linears import Linear, fused_unary

ACTIVATIONS = {
    aten.relu.default: ("relu", "relu"),
    aten.silu.default: ("swish", "silu"),
    aten.tanh.default: ("tanh", "tanh"),
    aten.sigmoid.default: ("sigmoid", "sigmoid"),
    aten.gelu.default: ("gelu", "gelu"),
}
"""Of an activation, its name in oneDNN's operator and in the evidence."""

STOCK = {name: (activation, known_as) for activation, (name, known_as) in ACTIVATIONS.items()}
"""Of a name in oneDNN's operator, the activation, and its name in the evidence."""


def fuse_linear_unary(program: Program, choice: Takes) -> None:
    """Fuse ``activation(linear(x))``.

    Not where anything else uses the linear's result, and not where the linear is left alone.
    """
    for node in program.calls(*ACTIVATIONS):
        linear = Linear.of(program, node.args[0])
        if linear is None or len(linear.node.users) > 1 or not choice.takes(program, linear):
            continue
        name, known_as = ACTIVATIONS[node.target]  # type: ignore[index]
        fused_unary(program, linear, node, name, algorithm_of(node))
        program.graph.erase_node(linear.node)
        program.fusions[f"linear+{known_as}"] += 1


def algorithm_of(node: Node) -> str:
    """Which gelu an activation is, in oneDNN's words; empty for others."""
    return str(argument(node, 1, "approximate", "none")) if is_call(node, aten.gelu.default) else ""
