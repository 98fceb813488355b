"""Pass: linears to 8 bits, fused as in float, their input brought to 8 bits once for all."""

from collections.abc import Mapping

from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, call, dtype
from cpuaccel_plugins.int8.arithmetic import (
    ACTIVATIONS,
    Channels,
    multiply,
    multiply_add,
    quantize,
    quantize_weight,
)
from cpuaccel_plugins.int8.selection import Selection
from cpuaccel_plugins.int8.spread import Matrix, Spread, matrix_of
from cpuaccel_plugins.onednn.linear.binary import fuse_linear_add
from cpuaccel_plugins.onednn.linear.concat import concat_linears
from cpuaccel_plugins.onednn.linear.linears import Linear, fused_unary, mkldnn
from cpuaccel_plugins.onednn.linear.unary import fuse_linear_unary

_SINGLE, _ADDING = mkldnn._linear_pointwise.default, mkldnn._linear_pointwise.binary


def quantize_linears(
    program: Program, selection: Selection, spreads: Mapping[Matrix, Spread]
) -> None:
    """Bring the chosen linears to 8 bits. The others stay, to be fused in float.

    The passes that fuse linears in float are the ones that fuse them here: they are only told
    which, and what they made is then brought to 8 bits.

    Args:
        program: the graph.
        selection: which linears.
        spreads: of their inputs, by the weight; where there is none, columns stay as they are.
    """
    program.operators |= {multiply: 1, multiply_add: 2}
    _quantize_inputs(program, selection, spreads)
    weights = _Weights(program)
    fuse_linear_unary(program, selection)
    fuse_linear_add(program, selection)
    concat_linears(program, selection, lambda _: _to_8_bits(program, weights))
    for node in program.calls(aten.linear.default):
        linear = Linear.of(program, node)
        if linear is not None and selection.takes(program, linear):
            fused_unary(program, linear, node, "none")
    _to_8_bits(program, weights)


def _quantize_inputs(
    program: Program, selection: Selection, spreads: Mapping[Matrix, Spread]
) -> None:
    """Let the linears take their inputs in 8 bits; to the passes these look as they did."""
    inputs: dict[Node, Node] = {}
    for node in selection.chosen:
        linear = Linear.of(program, node)
        assert linear is not None
        given, weight = linear.input, program.held(linear.weight)
        if given not in inputs:
            spread = spreads.get(matrix_of(weight)) or Spread.none(weight.shape[1])
            with program.graph.inserting_after(given):
                inputs[given] = call(program.graph, quantize, given, spread)
            inputs[given].meta["val"] = given.meta["val"]
        node.update_arg(0, inputs[given])


def _to_8_bits(program: Program, weights: "_Weights") -> None:
    """Replace oneDNN's linears, and let their dense weights go."""
    for node in program.calls(_SINGLE):
        given, dense, bias, activation, _, algorithm = node.args
        packed, channels = weights.of(dense, bias, given)
        fused = activation if activation in ACTIVATIONS else "none"
        with program.graph.inserting_before(node):
            new = call(
                program.graph, multiply, given, packed, channels, dtype(node), fused, algorithm
            )
            if fused != activation:
                new.meta["val"] = node.meta["val"]
                new = call(program.graph, getattr(aten, str(activation)).default, new)
        program.replace(node, new)
    for node in program.calls(_ADDING):
        given, other, dense, bias, _ = node.args
        packed, channels = weights.of(dense, bias, given)
        with program.graph.inserting_before(node):
            new = call(program.graph, multiply_add, given, other, packed, channels, dtype(node))
        program.replace(node, new)
    program.sweep()


class _Weights:
    """Weights in 8 bits, each made once, however many linears share it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._made: dict[tuple[Node, object, Spread], tuple[Node, Channels]] = {}

    def of(self, dense: object, bias: object, given: object) -> tuple[Node, Channels]:
        """What a dense weight becomes for an input in 8 bits."""
        assert isinstance(dense, Node)
        assert isinstance(given, Node)
        spread = given.args[1]
        assert isinstance(spread, Spread)
        key = (dense, bias, spread)
        if key not in self._made:
            program, weight = self._program, self._program.held(dense)
            packed, channels = quantize_weight(weight, program.constant(bias), spread)
            with program.graph.inserting_before(dense):
                self._made[key] = (
                    program.hold(packed, f"{dense.target}_int8", like=weight),
                    channels,
                )
        return self._made[key]
