"""Pass: between the markers of ``common.padding_markers``, compute on real tokens only.

There a batch of B sequences of length S becomes one sequence of its T packed tokens; sizes B and S
in reshapes become 1 and T. That is right for operators that treat each token alone, and for
attention. If any other operator is between the markers, padding is computed.
"""

import operator

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import (
    SPLIT_OR_JOIN,
    argument,
    aten,
    call,
    dtype,
    shape,
    symbol,
    value,
    walk,
)
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.padding_markers import markers
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.packed import (
    attend_packed,
    pack,
    read_layout,
    read_patterns,
    unpack,
)
from cpuaccel_plugins.onednn.attention.rewrite import is_supported, replace_attention

_SDPA = aten.scaled_dot_product_attention.default

_TOKENWISE = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.neg.default,
    aten.gelu.default,
    aten.relu.default,
    aten.silu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.pow.Tensor_Scalar,
    aten.rsqrt.default,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.permute.default,
    operator.getitem,
}
"""Operators that treat each token alone, whatever their arguments are."""

_LAST_AXIS = {aten.linear.default, aten.layer_norm.default, aten.rms_norm.default}
_BY_AXIS = {*SPLIT_OR_JOIN, aten.mean.dim}
"""Operators that work along their argument ``dim``."""

_SIZED = {aten.reshape.default, aten.expand.default}


def remove_padding(program: Program, choice: AttentionChoice) -> None:
    """Pack between the markers, or remove them and set ``padding_computed`` to the reason.

    ``marker_unpack(f(marker_pack(x, real), real), real)`` -> ``unpack(f(pack(x, layout)), layout)``
    with ``layout = read_layout(real)``.
    """
    packs, unpacks = (list(program.calls(marker)) for marker in markers())
    if not packs:
        return
    region = _Region(program, packs, unpacks)
    program.padding_computed = region.obstacle()
    if program.padding_computed is None:
        region.rewrite(choice)
    for marker in program.calls(*markers()):
        source = marker.args[0]
        assert isinstance(source, Node)
        program.replace(marker, source)
    program.sweep()


class _Region:
    """The nodes between the markers, and which sizes there depend on padding."""

    def __init__(self, program: Program, packs: list[Node], unpacks: list[Node]) -> None:
        self._program = program
        self._packs = packs
        self._unpacks = unpacks
        self._real = packs[0].args[1]
        # The exporter may not know that the mask and the hidden states have the same sizes.
        shapes = [_symbols(self._real), *(_symbols(marker.args[0]) for marker in packs)]
        self._batches = {shape[0] for shape in shapes} - {1}
        self._lengths = {shape[1] for shape in shapes}
        self._flats = {b * s for b in self._batches for s in self._lengths}  # type: ignore[operator]
        self._padded = self._batches | self._lengths | self._flats
        self._inside: list[Node] = []
        self._region = set(packs)
        for node in program.graph.nodes:
            if node in self._region or node in unpacks:
                continue
            if any(source in self._region for source in node.all_input_nodes):
                self._inside.append(node)
                self._region.add(node)

    def obstacle(self) -> str | None:
        """Why something between the markers has no packed form; None if all has."""
        if any(isinstance(size, int) for size in self._batches | self._lengths):
            return "the batch size or the length is fixed in the graph"
        if any(marker.args[1] is not self._real for marker in (*self._packs, *self._unpacks)):
            return "the model has several padding masks"
        for node in self._inside:
            if (fault := self._fault(node)) is not None:
                return f"{getattr(node.target, '__name__', node.target)} {fault}"
        return None

    def _fault(self, node: Node) -> str | None:
        target = node.target
        if target is _SDPA:
            if not self._comes_from_padding(argument(node, "attn_mask")):
                return "has another mask than the padding mask"
            return None if is_supported(node) else "is of a kind that is not packed"
        if target in _SIZED:
            return None if self._keeps_tokens(node) else "moves tokens"
        outside = [n for n in node.all_input_nodes if n not in self._region]
        if any(self._token_axes(n) for n in outside if value(n) is not None):
            return "reads a tensor of tokens from outside"
        if target in _TOKENWISE:
            return None
        if target in _LAST_AXIS:
            axes: object = -1
        elif target in _BY_AXIS:
            axes = argument(node, "dim")
        else:
            return "is not known to treat tokens alone"
        source = node.all_input_nodes[0]
        rank = len(shape(source))
        if isinstance(axes, int):
            axes = [axes]
        assert axes is None or isinstance(axes, (list, tuple))
        along = {axis % rank for axis in axes or range(rank)}  # mean: over all axes by default
        return "mixes tokens" if along & self._token_axes(source) else None

    def _comes_from_padding(self, mask: object) -> bool:
        if not isinstance(mask, Node) or dtype(mask) is not torch.bool:
            return False
        sizes = _symbols(mask)
        if len(sizes) != 4 or sizes[0] not in self._batches or sizes[1] != 1:
            return False
        if sizes[3] not in self._lengths:
            return False
        return self._real in walk([mask], lambda node: node.all_input_nodes)

    def _token_axes(self, node: Node) -> set[int]:
        return {axis for axis, size in enumerate(_symbols(node)) if size in self._padded}

    def _keeps_tokens(self, node: Node) -> bool:
        """Whether a reshape keeps the axes of tokens in front, or an expansion keeps all axes."""
        source, result = _symbols(node.args[0]), _symbols(node)
        sizes = [size for size in node.args[1] if isinstance(size, Node)]  # type: ignore[union-attr]
        if any(symbol(size.meta.get("val")) not in self._padded for size in sizes):
            return False
        if node.target is aten.expand.default:
            return len(source) == len(result)
        return all(
            sizes[0] in self._flats or (sizes[0] in self._batches and sizes[1] in self._lengths)
            for sizes in (source, result)
        )

    def rewrite(self, choice: AttentionChoice) -> None:
        """Pack everything between the markers."""
        graph = self._program.graph
        real = self._real
        assert isinstance(real, Node)
        with graph.inserting_after(real):
            layout = call(graph, read_layout, real)
        with graph.inserting_after(layout):
            count = call(graph, getattr, layout, "tokens")
        patterns: dict[Node, Node] = {}
        for node in self._inside:
            if node.target in _SIZED:
                sizes = [self._packed_size(s, count) for s in node.args[1]]  # type: ignore[union-attr]
                node.update_arg(1, sizes)  # type: ignore[arg-type]
        for node in self._inside:
            if node.target is _SDPA:
                self._replace_attention(node, layout, patterns, choice)
        for nodes, function in ((self._packs, pack), (self._unpacks, unpack)):
            for marker in nodes:
                with graph.inserting_before(marker):
                    self._program.replace(marker, call(graph, function, marker.args[0], layout))

    def _packed_size(self, size: object, count: Node) -> object:
        if not isinstance(size, Node):
            return size
        return 1 if symbol(size.meta.get("val")) in self._batches else count

    def _replace_attention(
        self, node: Node, layout: Node, patterns: dict[Node, Node], choice: AttentionChoice
    ) -> None:
        graph = self._program.graph
        mask = argument(node, "attn_mask")
        assert isinstance(mask, Node)
        pattern = None
        if shape(mask)[2] != 1:
            if mask not in patterns:
                with graph.inserting_before(node):
                    patterns[mask] = call(graph, read_patterns, mask, layout, dtype(node.args[0]))
            pattern = patterns[mask]
        replace_attention(self._program, node, choice, attend_packed, layout, pattern)


def _symbols(node: object) -> list[object]:
    return [symbol(size) for size in shape(node)]
