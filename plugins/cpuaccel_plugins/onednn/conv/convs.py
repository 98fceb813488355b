"""Convolutions on oneDNN: which there are, and the fused operator's own form of them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, argument, aten, call, hint, is_call, value
from cpuaccel_plugins.onednn.linear.linears import DTYPES, mkldnn

CONVOLUTIONS = (aten.conv2d.default, aten.conv1d.default)


@dataclass(frozen=True)
class Conv:
    """A convolution over one or two axes, not fused yet; over one, it is written as over two.

    Attributes:
        node: the ``aten.conv1d`` or ``aten.conv2d`` call.
        input: what it is applied to, shape (batch, channels, [height,] width).
        weight: shape (out channels, channels / groups, [height,] width), held by the program.
        bias: shape (out channels,), held by the program; None without one.
        padding: of the height and the width; so are the next two.
        stride: see above.
        dilation: see above.
        groups: of channels.
    """

    node: Node
    input: Node
    weight: Node
    bias: Node | None
    padding: list[int]
    stride: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(cls, program: Program, node: object) -> "Conv | None":
        """Read a node; None where it is no convolution with weights of its own."""
        if not is_call(node, *CONVOLUTIONS):
            return None
        assert isinstance(node, Node)
        given, weight = node.args[0], node.args[1]
        bias = argument(node, 2, "bias")
        held, seen = program.constant(weight), value(given)
        axes = 1 if is_call(node, aten.conv1d.default) else 2
        if (
            held is None
            or seen is None
            or held.dtype not in DTYPES
            or held.layout is not torch.strided
            or seen.dim() != axes + 2
            or (bias is not None and program.constant(bias) is None)
        ):
            return None
        assert isinstance(given, Node)
        assert isinstance(weight, Node)
        assert bias is None or isinstance(bias, Node)
        stride, padding, dilation = (
            _both(argument(node, index, name, [default]), axes, default)
            for index, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
        )
        groups = argument(node, 6, "groups", 1)
        assert isinstance(groups, int)
        return cls(node, given, weight, bias, padding, stride, dilation, groups)

    @property
    def flat(self) -> bool:
        """Whether it runs over one axis only."""
        return is_call(self.node, aten.conv1d.default)

    @property
    def input_size(self) -> list[int]:
        """The shape of the input in the example, with two axes."""
        seen = value(self.input)
        assert seen is not None
        size = [hint(s) for s in seen.shape]
        return [*size[:2], 1, *size[2:]] if self.flat else size

    @property
    def settings(self) -> tuple[list[int], list[int], list[int], int]:
        """Padding, stride, dilation and groups, in the fused operator's order."""
        return self.padding, self.stride, self.dilation, self.groups


def _both(given: object, axes: int, default: int) -> list[int]:
    """One number for each of two axes, where one axis or one number for all may be given."""
    assert isinstance(given, Sequence)
    numbers = [int(number) for number in given]
    if axes == 1:
        return [default, numbers[0]]
    return numbers * 2 if len(numbers) == 1 else numbers


def fused_conv(
    program: Program,
    conv: Conv,
    at: Node,
    *,
    packed: bool,
    activation: tuple[str, str] | None = None,
    added: Node | None = None,
) -> Node:
    """Put a convolution on oneDNN, with what follows it, in the place of a node.

    Its own weights are forgotten if nothing else uses them, the model's, too, where they were
    given up.

    Args:
        program: holds the graph.
        conv: the convolution; its node is removed where nothing else uses it.
        at: the node to replace.
        packed: whether to lay the weights out for the example's size, or just channels last.
        activation: oneDNN's name and its algorithm; None for no activation.
        added: what is added before the activation; None for nothing.
    """
    graph = program.graph
    weight = program.held(conv.weight)
    laid_out = weight.unsqueeze(2) if conv.flat else weight
    if packed:
        laid_out = pack_conv(laid_out, conv.settings, conv.input_size)
    else:
        laid_out = laid_out.contiguous(memory_format=torch.channels_last)
    with graph.inserting_before(at):
        held = program.hold(laid_out, f"{conv.weight.target}_laid_out", like=weight)
        given = call(graph, aten.unsqueeze.default, conv.input, 2) if conv.flat else conv.input
        if added is None:
            name, algorithm = activation or ("none", "")
            new = call(
                graph,
                mkldnn._convolution_pointwise.default,
                given,
                held,
                conv.bias,
                *conv.settings,
                name,
                [],
                algorithm,
            )
        else:
            name, algorithm = activation or (None, None)  # type: ignore[assignment]
            other = call(graph, aten.unsqueeze.default, added, 2) if conv.flat else added
            new = call(
                graph,
                mkldnn._convolution_pointwise.binary,
                given,
                other,
                held,
                conv.bias,
                *conv.settings,
                "add",
                1.0,
                name,
                [],
                algorithm,
            )
        if conv.flat:
            new = call(graph, aten.squeeze.dim, new, 2)
    program.replace(at, new)
    program.sweep()
    if program.release is not None and str(conv.weight.target) not in program.tensors:
        restore = functools.partial(_restored, laid_out, weight.shape)
        program.released += program.release(weight, restore)
    return new


def _restored(laid_out: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    dense = laid_out.to_dense() if laid_out.is_mkldnn else laid_out.contiguous()
    return dense.reshape(shape)


def pack_conv(
    weight: torch.Tensor,
    settings: tuple[list[int], list[int], list[int], int],
    input_size: list[int],
) -> torch.Tensor:
    """A weight in the layout that oneDNN likes best for inputs of a size; others are taken, too."""
    packed: torch.Tensor = mkldnn._reorder_convolution_weight(weight, *settings, input_size)
    return packed
