"""Pass: a convolution, and the addition and activation after it, become one operator."""

from dataclasses import replace

from cpuaccel_plugins.aten_graph.nodes import is_call
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.conv.choice import ConvChoice
from cpuaccel_plugins.onednn.conv.nodes import CONVOLUTIONS, Conv, replace_by_fused_conv
from cpuaccel_plugins.onednn.operators import ACTIVATIONS, Activation, added_to, only_user


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
        if layout == "stock":
            program.left_alone["convolutions that the stock operator runs as fast"] += 1
            continue
        last, user = node, only_user(node)
        if user is not None and (other := added_to(node, user)) is not None:
            last, conv = user, replace(conv, other=other)
            program.fusions["conv+add"] += 1
        user = only_user(last)
        if is_call(user, *ACTIVATIONS):
            last, conv = user, replace(conv, activation=Activation.from_node(user))
            program.fusions[f"conv+{conv.activation.label}"] += 1
        packed = layout == "packed"
        replace_by_fused_conv(program, conv, last, packed=packed)
        program.packed_weights += packed
