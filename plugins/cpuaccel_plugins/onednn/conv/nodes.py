"""The convolutions of a graph, and oneDNN's fused operators in their place."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import argument, aten, call, example_shape, is_call, value
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION, Activation, Operands, mkldnn

CONVOLUTIONS = (aten.conv2d.default, aten.conv1d.default)

FUSED_UNARY = mkldnn._convolution_pointwise.default
"""A convolution and an activation."""

FUSED_ADD = mkldnn._convolution_pointwise.binary
"""A convolution, an addition and an activation."""

Pair: TypeAlias = tuple[int, int]
"""Of height and width."""

ConvSettings: TypeAlias = tuple[Pair, Pair, Pair, int]
"""Padding, stride, dilation and groups, in the order of oneDNN's operators."""


@dataclass(frozen=True)
class Conv:
    """A convolution over one or two axes, and what is fused with it."""

    node: Node
    input: Node  # (batch, channels, [height,] width)
    weight: Node  # (out channels, channels / groups, [height,] width)
    bias: Node | None
    settings: ConvSettings  # for two axes; over one axis, the height is 1
    other: Node | None = None  # what is added to the result, before the activation
    activation: Activation = NO_ACTIVATION

    @classmethod
    def from_node(cls, program: Program, node: object) -> "Conv | None":
        """Read a node; None if it is not a convolution with constant weights of a usable dtype."""
        if not is_call(node, *CONVOLUTIONS):
            return None
        operands = Operands.from_node(program, node)
        if operands is None:
            return None
        fake, weight = value(operands.input), program.tensor(operands.weight)
        if fake is None or fake.dim() != weight.dim():  # an image that is not in a batch
            return None
        axes = weight.dim() - 2
        padding, stride, dilation = (
            _pair(argument(node, name), axes, default)
            for name, default in (("padding", 0), ("stride", 1), ("dilation", 1))
        )
        groups = argument(node, "groups")
        assert isinstance(groups, int)
        return cls(node, *operands, (padding, stride, dilation, groups))

    @property
    def is_1d(self) -> bool:
        """Whether it runs over one axis only."""
        return is_call(self.node, aten.conv1d.default)

    @property
    def input_size(self) -> tuple[int, ...]:
        """The shape of the input in the example, with two axes."""
        size = example_shape(self.input)
        return (*size[:2], 1, *size[2:]) if self.is_1d else size

    def weight_2d(self, program: Program) -> torch.Tensor:
        """The weight, with two axes."""
        weight = program.tensor(self.weight)
        return weight.unsqueeze(2) if self.is_1d else weight


def _pair(numbers: object, axes: int, default: int) -> Pair:
    """A setting for two axes, from one for one axis, or from one number for all axes."""
    assert isinstance(numbers, Sequence)
    if axes == 1:
        return default, int(numbers[0])
    return int(numbers[0]), int(numbers[-1])


def replace_by_fused_conv(program: Program, conv: Conv, old: Node, *, packed: bool) -> None:
    """Replace ``old``, the last of the fused nodes, and release the weight if nothing else uses it.

    ``packed`` is for the example's size, else channels last.
    """
    graph = program.graph
    weight, weight_2d = program.tensor(conv.weight), conv.weight_2d(program)
    if packed:
        laid_out = pack_conv_weight(weight_2d, conv.settings, conv.input_size)
    else:
        laid_out = weight_2d.contiguous(memory_format=torch.channels_last)
    with graph.inserting_before(old):
        node = program.add_tensor(laid_out, f"{conv.weight.target}_laid_out", like=weight)
        inputs, other = conv.input, conv.other
        if conv.is_1d:
            inputs = call(graph, aten.unsqueeze.default, inputs, 2)
            other = None if other is None else call(graph, aten.unsqueeze.default, other, 2)
        operands = (node, conv.bias, *conv.settings)
        name, algorithm = conv.activation
        if other is None:
            new = call(graph, FUSED_UNARY, inputs, *operands, name, [], algorithm)
        elif conv.activation == NO_ACTIVATION:
            new = call(graph, FUSED_ADD, inputs, other, *operands, "add", 1.0, None, [], None)
        else:
            new = call(graph, FUSED_ADD, inputs, other, *operands, "add", 1.0, name, [], algorithm)
        if conv.is_1d:
            new = call(graph, aten.squeeze.dim, new, 2)
    program.replace(old, new)
    program.sweep()
    if program.release is not None and str(conv.weight.target) not in program.tensors:
        restore = functools.partial(_unpack, laid_out, weight.shape)
        program.released_weights += program.release(weight, restore)


def _unpack(laid_out: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    dense = laid_out.to_dense() if laid_out.is_mkldnn else laid_out.contiguous()
    return dense.reshape(shape)


def pack_conv_weight(
    weight: torch.Tensor, settings: ConvSettings, input_size: Sequence[int]
) -> torch.Tensor:
    """Pack a weight for inputs of a size; oneDNN takes inputs of other sizes, too."""
    packed: torch.Tensor = mkldnn._reorder_convolution_weight(weight, *settings, input_size)
    return packed
