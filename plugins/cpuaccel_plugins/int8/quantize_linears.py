"""Pass: linears to 8 bits, fused as in float, their input brought to 8 bits once for all."""

from dataclasses import dataclass, field

from torch.fx import Node

from cpuaccel_plugins.onednn.concat_linear import concat_linears
from cpuaccel_plugins.onednn.linear_binary import fuse_linear_add
from cpuaccel_plugins.onednn.linear_unary import fuse_linear_unary
from cpuaccel_plugins.onednn.linears import Linear, fused_unary, mkldnn
from cpuaccel_plugins.onednn.program import Program, aten, call, dtype

from .arithmetic import ACTIVATIONS, Channels, multiply, multiply_add, quantize, quantize_weight
from .selection import Selection

_SINGLE, _ADDING = mkldnn._linear_pointwise.default, mkldnn._linear_pointwise.binary


def quantize_linears(program: Program, selection: Selection) -> None:
    """Bring the chosen linears to 8 bits. The others stay, to be fused in float.

    The passes that fuse linears in float are the ones that fuse them here: they are only told
    which, and what they made is then brought to 8 bits.
    """
    program.operators |= {multiply: 1, multiply_add: 2}
    bits = _To8Bits()
    fuse_linear_unary(program, selection)
    fuse_linear_add(program, selection)
    concat_linears(program, selection, pack=bits.convert)
    for node in program.calls(aten.linear.default):
        linear = Linear.of(program, node)
        if linear is not None and selection.takes(program, linear):
            fused_unary(program, linear, node, "none")
    bits.convert(program)


@dataclass
class _To8Bits:
    """Replaces oneDNN's linears.

    Attributes:
        inputs: of a float input, its 8 bits.
        weights: of a dense weight and a bias, the packed weight and what belongs to it.
    """

    inputs: dict[Node, Node] = field(default_factory=dict)
    weights: dict[tuple[Node, object], tuple[Node, Channels]] = field(default_factory=dict)

    def convert(self, program: Program) -> None:
        """Replace all that there are, and let their dense weights go."""
        for node in program.calls(_SINGLE):
            given, weight, bias, activation, _, algorithm = node.args
            eighth, (packed, channels) = self._input(program, given), self._weight(
                program, weight, bias
            )
            fused = activation if activation in ACTIVATIONS else "none"
            with program.graph.inserting_before(node):
                new = call(
                    program.graph, multiply, eighth, packed, channels, dtype(node), fused, algorithm
                )
                if fused != activation:
                    new.meta["val"] = node.meta["val"]
                    new = call(program.graph, getattr(aten, str(activation)).default, new)
            program.replace(node, new)
        for node in program.calls(_ADDING):
            given, other, weight, bias, _ = node.args
            eighth, (packed, channels) = self._input(program, given), self._weight(
                program, weight, bias
            )
            with program.graph.inserting_before(node):
                new = call(
                    program.graph, multiply_add, eighth, other, packed, channels, dtype(node)
                )
            program.replace(node, new)
        program.sweep()

    def _input(self, program: Program, given: object) -> Node:
        assert isinstance(given, Node)
        if given not in self.inputs:
            with program.graph.inserting_after(given):
                self.inputs[given] = call(program.graph, quantize, given)
        return self.inputs[given]

    def _weight(self, program: Program, dense: object, bias: object) -> tuple[Node, Channels]:
        assert isinstance(dense, Node)
        if (dense, bias) not in self.weights:
            weight = program.constant(dense)
            assert weight is not None
            packed, channels = quantize_weight(weight, program.constant(bias))
            with program.graph.inserting_before(dense):
                held = program.hold(packed, f"{dense.target}_int8", like=weight)
            self.weights[dense, bias] = held, channels
        return self.weights[dense, bias]
