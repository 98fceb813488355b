"""Pass: between the markers of ``common.padding_markers``, compute on real tokens only.

There a batch of B sequences of length S becomes one sequence of its T packed tokens; sizes B and S
in reshapes become 1 and T. That is right for operators that treat each token alone, and for
attention. If any other operator is between the markers, padding is computed.
"""

import operator
from collections.abc import Iterable

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import argument, aten, call, symbol, value
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.padding_markers import markers
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.packed import (
    attend_packed,
    pack,
    read_layout,
    read_patterns,
    tokens,
    unpack,
)
from cpuaccel_plugins.onednn.attention.rewrite import (
    attention_scale,
    is_supported,
    replace_attention,
)

_SDPA = aten.scaled_dot_product_attention.default

_ELEMENTWISE = {
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
    operator.getitem,
}
_LAST_AXIS = {aten.linear.default, aten.layer_norm.default, aten.rms_norm.default}
_BY_AXIS = {
    aten.transpose.int: ((1, "dim0"), (2, "dim1")),
    aten.unsqueeze.default: (),
    aten.permute.default: (),
    aten.slice.Tensor: ((1, "dim"),),
    aten.split.Tensor: ((2, "dim"),),
    aten.split_with_sizes.default: ((2, "dim"),),
    aten.chunk.default: ((2, "dim"),),
    aten.unbind.int: ((1, "dim"),),
    aten.cat.default: ((1, "dim"),),
    aten.mean.dim: (),
}
_MOVES = {aten.transpose.int, aten.unsqueeze.default, aten.permute.default}
_SIZED = {aten.reshape.default, aten.expand.default}


def remove_padding(program: Program, choice: AttentionChoice) -> None:
    """Pack between the markers, or remove them and set ``padding_computed`` to the reason.

    ``marker_unpack(f(marker_pack(x, real), real), real)`` -> ``unpack(f(pack(x, layout)), layout)``
    with ``layout = read_layout(real)``.
    """
    packs, unpacks = (list(program.calls(marker)) for marker in markers())
    if not packs:
        return
    try:
        _Region(program, packs, unpacks).rewrite(choice)
    except _NotPackableError as obstacle:
        program.padding_computed = str(obstacle)
    for marker in program.calls(*markers()):
        source = marker.args[0]
        assert isinstance(source, Node)
        program.replace(marker, source)
    program.sweep()


class _NotPackableError(Exception):
    """Something between the markers has no packed form."""


class _Region:
    def __init__(self, program: Program, packs: list[Node], unpacks: list[Node]) -> None:
        self._program = program
        self._packs = packs
        self._unpacks = set(unpacks)
        self._real = packs[0].args[1]
        # The exporter may not know that the mask and the hidden states have the same sizes.
        shapes = [_sizes(self._real), *(_sizes(marker.args[0]) for marker in packs)]
        self._batches = {shape[0] for shape in shapes} - {1}
        self._lengths = {shape[1] for shape in shapes}
        self._flats = {b * s for b in self._batches for s in self._lengths}  # type: ignore[operator]
        self._inside = self._collect()
        self._region = {*packs, *self._inside}

    def _collect(self) -> list[Node]:
        """The nodes between the markers, in order."""
        inside = set(self._packs)
        for node in self._program.graph.nodes:
            if node not in self._unpacks and any(n in inside for n in node.all_input_nodes):
                inside.add(node)
        return [n for n in self._program.graph.nodes if n in inside and n not in self._packs]

    def rewrite(self, choice: AttentionChoice) -> None:
        """Pack everything between the markers, or raise before any change."""
        if any(isinstance(size, int) for size in self._batches | self._lengths):
            raise _NotPackableError("the batch size or the length is fixed in the graph")
        if any(marker.args[1] is not self._real for marker in (*self._packs, *self._unpacks)):
            raise _NotPackableError("the model has several padding masks")
        for node in self._inside:
            self._check(node)
        self._replace(choice)

    def _check(self, node: Node) -> None:
        target = node.target
        name = getattr(target, "__name__", target)
        if target is _SDPA:
            mask = argument(node, 3, "attn_mask")
            if not isinstance(mask, Node) or not self._comes_from_padding(mask):
                raise _NotPackableError(f"{name} has another mask than the padding mask")
            if not is_supported(node):
                raise _NotPackableError(f"{name} is of a kind that is not packed")
            return
        if target in _SIZED:
            if not self._keeps_tokens(node):
                raise _NotPackableError(f"{name} moves tokens")
            return
        outside = [n for n in node.all_input_nodes if n not in self._region]
        if any(self._token_axes(n) for n in outside if value(n) is not None):
            raise _NotPackableError(f"{name} reads a tensor of tokens from outside")
        if target in _ELEMENTWISE or target in _MOVES:
            return
        source = node.all_input_nodes[0]
        if target in _LAST_AXIS:
            mixes = self._token_axes(source)[-1:] == [_rank(source) - 1]
        elif target in _BY_AXIS:
            mixes = not self._spares_tokens(node, source)
        else:
            raise _NotPackableError(f"{name} is not known to treat tokens alone")
        if mixes:
            raise _NotPackableError(f"{name} mixes tokens")

    def _comes_from_padding(self, mask: Node) -> bool:
        fake = value(mask)
        if fake is None or fake.dtype is not torch.bool or fake.shape[1] != 1:
            return False
        if symbol(fake.shape[0]) not in self._batches:
            return False
        if symbol(fake.shape[3]) not in self._lengths:
            return False
        seen, waiting = set(), [mask]
        while waiting:
            node = waiting.pop()
            if node is self._real:
                return True
            if node not in seen:
                seen.add(node)
                waiting += node.all_input_nodes
        return False

    def _token_axes(self, node: Node) -> list[int]:
        fake = value(node)
        assert fake is not None
        own = self._batches | self._lengths | self._flats
        return [axis for axis, size in enumerate(fake.shape) if symbol(size) in own]

    def _spares_tokens(self, node: Node, source: Node) -> bool:
        """Whether the axes that an operator works along are not axes of tokens."""
        rank, tokens_at = _rank(source), self._token_axes(source)
        if node.target is aten.mean.dim:
            axes: Iterable[object] = argument(node, 1, "dim") or range(rank)  # type: ignore[assignment]
        else:
            places = _BY_AXIS[node.target]  # type: ignore[index]
            axes = [argument(node, index, name, 0) for index, name in places]
        return all(isinstance(axis, int) and axis % rank not in tokens_at for axis in axes)

    def _keeps_tokens(self, node: Node) -> bool:
        """Whether a reshape keeps the axes of tokens in front, or an expansion keeps all axes."""
        source, result = value(node.args[0]), value(node)
        if source is None or result is None:
            return False
        if not all(self._translatable(size) for size in node.args[1]):  # type: ignore[union-attr]
            return False
        if node.target is aten.expand.default:
            return len(source.shape) == len(result.shape)
        return self._leads_with_tokens(source) and self._leads_with_tokens(result)

    def _leads_with_tokens(self, tensor: torch.Tensor) -> bool:
        shape = [symbol(size) for size in tensor.shape]
        flat = shape[0] in self._flats
        return flat or (shape[0] in self._batches and shape[1] in self._lengths)

    def _translatable(self, size: object) -> bool:
        if not isinstance(size, Node):
            return True
        known = self._batches | self._lengths | self._flats
        return symbol(size.meta.get("val")) in known

    def _replace(self, choice: AttentionChoice) -> None:
        graph = self._program.graph
        real = self._real
        assert isinstance(real, Node)
        with graph.inserting_after(real):
            layout = call(graph, read_layout, real)
        with graph.inserting_after(layout):
            count = call(graph, tokens, layout)
        patterns: dict[Node, Node] = {}
        for node in self._inside:
            if node.target in _SIZED:
                sizes = [self._packed_size(s, count) for s in node.args[1]]  # type: ignore[union-attr]
                node.update_arg(1, sizes)  # type: ignore[arg-type]
        for node in self._inside:
            if node.target is _SDPA:
                with graph.inserting_before(node):
                    self._replace_attention(node, layout, patterns, choice)
        for marker in self._packs:
            with graph.inserting_before(marker):
                self._program.replace(marker, call(graph, pack, marker.args[0], layout))
        for marker in self._unpacks:
            with graph.inserting_before(marker):
                self._program.replace(marker, call(graph, unpack, marker.args[0], layout))

    def _packed_size(self, size: object, count: Node) -> object:
        if not isinstance(size, Node):
            return size
        return 1 if symbol(size.meta.get("val")) in self._batches else count

    def _replace_attention(
        self, node: Node, layout: Node, patterns: dict[Node, Node], choice: AttentionChoice
    ) -> None:
        graph = self._program.graph
        query, mask = value(node.args[0]), argument(node, 3, "attn_mask")
        assert query is not None
        assert isinstance(mask, Node)
        pattern = None
        fake_mask = value(mask)
        assert fake_mask is not None
        if fake_mask.shape[2] != 1:
            if mask not in patterns:
                patterns[mask] = call(graph, read_patterns, mask, layout, query.dtype)
            pattern = patterns[mask]
        new = call(
            graph,
            attend_packed,
            tuple(node.args[:3]),
            layout,
            pattern,
            attention_scale(node, query),
            choice.method_by_length(query),
        )
        replace_attention(self._program, node, new)


def _sizes(node: object) -> list[object]:
    fake = value(node)
    assert fake is not None
    return [symbol(size) for size in fake.shape]


def _rank(node: Node) -> int:
    fake = value(node)
    assert fake is not None
    return fake.dim()
