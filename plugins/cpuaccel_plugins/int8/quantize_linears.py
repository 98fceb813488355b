"""Pass: linears in 8 bits, fused as in float, with each input quantized once."""

from collections.abc import Mapping

from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, call, dtype, is_call
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.int8.arithmetic import (
    ACTIVATIONS,
    Channels,
    int8_linear,
    int8_linear_add,
    quantize,
    quantize_weight,
)
from cpuaccel_plugins.int8.outliers import OutlierSplit, WeightKey, weight_key
from cpuaccel_plugins.int8.selection import Selection
from cpuaccel_plugins.onednn.linear.concat import concat_linears
from cpuaccel_plugins.onednn.linear.nodes import FUSED_ADD, FUSED_UNARY, Linear
from cpuaccel_plugins.onednn.linear.pointwise import fuse_linear
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION


def quantize_linears(
    program: Program, selection: Selection, splits: Mapping[WeightKey, OutlierSplit]
) -> None:
    """Compute the selected linears in 8 bits, concatenated and fused by the passes of ``onednn``.

    ``activation(linear(x, w, b))`` -> ``int8_linear(quantize(x), packed, channels, activation)``;
    likewise with an addition. No linear is fused before.
    """
    program.linear_operators |= {int8_linear: 1, int8_linear_add: 2}
    _quantize_inputs(program, selection, splits)
    weights = _Weights(program)
    concat_linears(program, _is_quantized, pack=weights.replace_fused)
    for node in program.calls(aten.linear.default):
        linear = Linear.from_stock(program, node)
        if linear is not None and _is_quantized(program, linear):
            fuse_linear(program, node, linear)
    weights.replace_fused(program)


def _quantize_inputs(
    program: Program, selection: Selection, splits: Mapping[WeightKey, OutlierSplit]
) -> None:
    """Insert quantization; for the passes, its result has the shape and dtype of its input."""
    quantized: dict[Node, Node] = {}
    for node in selection.chosen:
        inputs, weight = node.all_input_nodes[:2]
        if inputs not in quantized:
            dense = program.tensor(weight)
            split = splits.get(weight_key(dense)) or OutlierSplit.none(dense.shape[1])
            with program.graph.inserting_after(inputs):
                quantized[inputs] = call(program.graph, quantize, inputs, split)
            quantized[inputs].meta["val"] = inputs.meta["val"]
        node.update_arg(0, quantized[inputs])


def _is_quantized(program: Program, linear: Linear) -> bool:
    return is_call(linear.input, quantize)


class _Weights:
    """Quantizes each weight once, however many linears share it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._quantized: dict[tuple[Node, object, OutlierSplit], tuple[Node, Channels]] = {}

    def replace_fused(self, program: Program) -> None:
        """Replace oneDNN's fused linears, and remove their dense weights."""
        graph = program.graph
        for node in program.calls(FUSED_UNARY, FUSED_ADD):
            linear = Linear.from_fused(node)
            weight, channels = self._quantize(linear)
            operands, other = (weight, channels, dtype(node)), linear.other
            with graph.inserting_before(node):
                if other is not None:
                    new = call(graph, int8_linear_add, linear.input, other, *operands)
                else:
                    fused = linear.activation.name in ACTIVATIONS
                    name_and_algorithm = linear.activation if fused else NO_ACTIVATION
                    new = call(graph, int8_linear, linear.input, *operands, *name_and_algorithm)
                    if not fused:
                        new.meta["val"] = node.meta["val"]
                        new = linear.activation.add_call(program, new)
            program.replace(node, new)
        program.sweep()

    def _quantize(self, linear: Linear) -> tuple[Node, Channels]:
        program, dense = self._program, linear.weight
        split = linear.input.args[1]
        assert isinstance(split, OutlierSplit)
        key = (dense, linear.bias, split)
        if key not in self._quantized:
            weight = program.tensor(dense)
            packed, channels = quantize_weight(weight, program.constant(linear.bias), split)
            with program.graph.inserting_before(dense):
                node = program.add_tensor(packed, f"{dense.target}_int8", like=weight)
            self._quantized[key] = node, channels
        return self._quantized[key]
