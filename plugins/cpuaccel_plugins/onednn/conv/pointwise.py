"""Pass: a convolution with the addition and the activation after it, and its weights packed."""

from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, dtype, is_call, same_shape
from cpuaccel_plugins.onednn.conv.choice import ConvChoice, Weights
from cpuaccel_plugins.onednn.conv.convs import CONVOLUTIONS, Conv, fused_conv
from cpuaccel_plugins.onednn.linear.unary import ACTIVATIONS, algorithm_of


def fuse_convs(program: Program, choice: ConvChoice) -> None:
    """Fuse ``activation(conv(x) + other)``, each part of it if it is there, and pack weights.

    Not where anything else uses what lies between, where the addition broadcasts, or where the
    convolution is left alone.
    """
    for node in program.calls(*CONVOLUTIONS):
        conv = Conv.of(program, node)
        if conv is None:
            program.left["convolutions whose weights are no constants of a usable dtype"] += 1
            continue
        weights = choice.of(program, conv)
        if weights is Weights.STOCK:
            program.left["convolutions that the stock operator runs as fast"] += 1
            continue
        at, added = node, None
        user = _only_user(node)
        if user is not None and (added := _added(node, user)) is not None:
            at = user
            program.fusions["conv+add"] += 1
        user = _only_user(at)
        activation = None
        if is_call(user, *ACTIVATIONS):
            assert user is not None
            name, known_as = ACTIVATIONS[user.target]  # type: ignore[index]
            activation, at = (name, algorithm_of(user)), user
            program.fusions[f"conv+{known_as}"] += 1
        packed = weights is Weights.PACKED
        fused_conv(program, conv, at, packed=packed, activation=activation, added=added)
        program.packed += packed


def _only_user(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _added(node: Node, user: Node) -> Node | None:
    """What a node's only user adds to it, if it is a plain addition of the same shape."""
    if not is_call(user, aten.add.Tensor) or user.kwargs.get("alpha", 1) != 1:
        return None
    other = user.args[1] if user.args[0] is node else user.args[0]
    if not isinstance(other, Node) or other is node:
        return None
    alike = same_shape(node, other) and dtype(node) == dtype(other)
    return other if alike else None
