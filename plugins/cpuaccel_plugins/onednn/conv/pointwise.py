"""Pass: a convolution, and the addition and activation after it, become one operator."""

from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, dtype, is_call, same_shape
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.conv.choice import ConvChoice, WeightLayout
from cpuaccel_plugins.onednn.conv.nodes import CONVOLUTIONS, Conv, replace_by_fused_conv
from cpuaccel_plugins.onednn.operators import ACTIVATIONS, NO_ACTIVATION, Activation


def fuse_convs(program: Program, choice: ConvChoice) -> None:
    """Fuse convolutions with additions and activations, and pack their weights.

    ``activation(conv(x, w, b) + other)``, with addition, activation, both or none ->
    ``fused_conv(x, packed, b, other, activation)``. Not if anything else uses what lies between,
    if the addition broadcasts, or if the stock operator is as fast.
    """
    for node in program.calls(*CONVOLUTIONS):
        conv = Conv.from_node(program, node)
        if conv is None:
            program.left_alone["convolutions without constant weights of a usable dtype"] += 1
            continue
        layout = choice.layout(program, conv)
        if layout is WeightLayout.STOCK:
            program.left_alone["convolutions that the stock operator runs as fast"] += 1
            continue
        last, added = node, None
        user = _only_user(last)
        if user is not None and (added := _added(node, user)) is not None:
            last = user
            program.fusions["conv+add"] += 1
        user = _only_user(last)
        activation = NO_ACTIVATION
        if is_call(user, *ACTIVATIONS):
            activation, last = Activation.from_node(user), user
            program.fusions[f"conv+{activation.label}"] += 1
        packed = layout is WeightLayout.PACKED
        replace_by_fused_conv(
            program, conv, last, packed=packed, activation=activation, added=added
        )
        program.packed_weights += packed


def _only_user(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _added(node: Node, user: Node) -> Node | None:
    """What the only user of a node adds to it, if it is a plain addition of the same shape."""
    if not is_call(user, aten.add.Tensor) or user.kwargs.get("alpha", 1) != 1:
        return None
    other = user.args[1] if user.args[0] is node else user.args[0]
    if not isinstance(other, Node) or other is node:
        return None
    alike = same_shape(node, other) and dtype(node) == dtype(other)
    return other if alike else None
