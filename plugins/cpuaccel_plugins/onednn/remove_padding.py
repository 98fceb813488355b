"""Pass: between the markers of ``common.padding_markers``, compute on real tokens only.

Between them a batch of B sequences of length S becomes one sequence of its T kept tokens. Every
operator there has to be one that treats tokens alone, or attention; sizes B and S that are handed
to reshapes become 1 and T. Where any operator is not known to be such, the whole is left as it is.
"""

import operator
from collections.abc import Iterable

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, argument, aten, call, symbol, value
from cpuaccel_plugins.common.padding_markers import markers
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.rewrite import scale_of, serves, take_place
from cpuaccel_plugins.onednn.packed import (
    attend_packed,
    pack,
    read_layout,
    read_patterns,
    tokens,
    unpack,
)

_SDPA = aten.scaled_dot_product_attention.default

_BY_ELEMENT = {
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


def remove_padding(program: Program, choice: AttentionChoice) -> str:
    """Replace the markers by packing, and all that is between them by its packed form.

    Returns:
        Empty where it was done, or where there are no markers; else why it was not.
    """
    packs, unpacks = (list(program.calls(marker)) for marker in markers())
    if not packs:
        return ""
    reason = _Region(program, packs, unpacks).rewrite(choice)
    for marker in (*program.calls(*markers()),):
        source = marker.args[0]
        assert isinstance(source, Node)
        program.replace(marker, source)
    program.sweep()
    return reason


class _Region:
    def __init__(self, program: Program, packs: list[Node], unpacks: list[Node]) -> None:
        self._program = program
        self._packs = packs
        self._unpacks = set(unpacks)
        self._real = packs[0].args[1]
        # The exporter need not have found out that the mask's sizes are the hidden states'.
        shapes = [_sizes(self._real), *(_sizes(marker.args[0]) for marker in packs)]
        self._batches = {shape[0] for shape in shapes} - {1}
        self._lengths = {shape[1] for shape in shapes}
        self._flats = {b * s for b in self._batches for s in self._lengths}  # type: ignore[operator]
        self._inside = self._collect()
        self._region = {*packs, *self._inside}

    def _collect(self) -> list[Node]:
        """What lies between the markers, in order."""
        inside = set(self._packs)
        for node in self._program.graph.nodes:
            if node not in self._unpacks and any(n in inside for n in node.all_input_nodes):
                inside.add(node)
        return [n for n in self._program.graph.nodes if n in inside and n not in self._packs]

    def rewrite(self, choice: AttentionChoice) -> str:
        """Pack, if all of it can be packed; the reason, where not."""
        if any(isinstance(size, int) for size in self._batches | self._lengths):
            return "the batch size or the length is fixed in the graph"
        if any(marker.args[1] is not self._real for marker in (*self._packs, *self._unpacks)):
            return "there are several kinds of padding in the model"
        for node in self._inside:
            if reason := self._obstacle(node):
                return f"{getattr(node.target, '__name__', node.target)} {reason}"
        self._replace(choice)
        return ""

    def _obstacle(self, node: Node) -> str:
        """Why a node can't be packed; empty where it can."""
        target = node.target
        if target is _SDPA:
            return self._attention_obstacle(node)
        outside = [n for n in node.all_input_nodes if n not in self._region]
        if target in _SIZED:
            return "" if self._keeps_tokens(node) else "moves tokens"
        if any(self._has_tokens(n) for n in outside if value(n) is not None):
            return "takes in something for each token from outside"
        if target in _BY_ELEMENT:
            return ""
        source = node.all_input_nodes[0]
        if target in _LAST_AXIS:
            return "" if self._token_axes(source)[-1:] != [_rank(source) - 1] else "mixes tokens"
        if target in _MOVES:
            return ""
        if target in _BY_AXIS:
            return "" if self._spares_tokens(node, source) else "mixes tokens"
        return "is not known to treat tokens alone"

    def _attention_obstacle(self, node: Node) -> str:
        mask = argument(node, 3, "attn_mask")
        if not isinstance(mask, Node) or not self._comes_from_padding(mask):
            return "has another mask than the padding's"
        return "" if serves(node) else "is of a kind that is not packed"

    def _comes_from_padding(self, mask: Node) -> bool:
        found = value(mask)
        if found is None or found.dtype is not torch.bool or found.shape[1] != 1:
            return False
        if symbol(found.shape[0]) not in self._batches:
            return False
        if symbol(found.shape[3]) not in self._lengths:
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
        found = value(node)
        assert found is not None
        own = self._batches | self._lengths | self._flats
        return [axis for axis, size in enumerate(found.shape) if symbol(size) in own]

    def _has_tokens(self, node: Node) -> bool:
        return bool(self._token_axes(node))

    def _spares_tokens(self, node: Node, source: Node) -> bool:
        rank, tokens_at = _rank(source), self._token_axes(source)
        if node.target is aten.mean.dim:
            axes: Iterable[object] = argument(node, 1, "dim") or range(rank)  # type: ignore[assignment]
        else:
            places = _BY_AXIS[node.target]  # type: ignore[index]
            axes = [argument(node, index, name, 0) for index, name in places]
        return all(isinstance(axis, int) and axis % rank not in tokens_at for axis in axes)

    def _keeps_tokens(self, node: Node) -> bool:
        """Whether a reshape leaves the axes of tokens in front, or an expansion all of them."""
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
        seen = value(mask)
        assert seen is not None
        if seen.shape[2] != 1:
            if mask not in patterns:
                patterns[mask] = call(graph, read_patterns, mask, layout, query.dtype)
            pattern = patterns[mask]
        new = call(
            graph,
            attend_packed,
            tuple(node.args[:3]),
            layout,
            pattern,
            scale_of(node, query),
            choice.of(query),
        )
        take_place(self._program, node, new)


def _sizes(node: object) -> list[object]:
    found = value(node)
    assert found is not None
    return [symbol(size) for size in found.shape]


def _rank(node: Node) -> int:
    found = value(node)
    assert found is not None
    return found.dim()
