"""Pass: reuse what depends on the inputs' sizes alone in calls of the same sizes."""

import operator
from collections.abc import Collection, Sequence

import torch
from torch.fx import Graph, Node

from cpuaccel_plugins.aten_graph.cleanup import is_pure
from cpuaccel_plugins.aten_graph.codegen import compile_program
from cpuaccel_plugins.aten_graph.nodes import aten, call, value
from cpuaccel_plugins.aten_graph.program import Program

Values = tuple[torch.Tensor, ...]


class SizeCache:
    """Tensors that depend on sizes alone, cached for the last sizes and never changed in place.

    Attributes:
        program: computes them from the sizes.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._make = compile_program(program)
        self._last: tuple[tuple[int, ...], Values] | None = None

    def tensors(self, *sizes: int) -> Values:
        """The tensors for these sizes. Threads that use other sizes only cost recomputation."""
        last = self._last
        if last is None or last[0] != sizes:
            last = self._last = sizes, self._make(*sizes)
        return last[1]


def cache_by_size(program: Program) -> None:
    """Compute positions, windows, relative position biases and the like once for each size.

    ``f(x.size(1), weight)`` -> ``cache.tensors(x.size(1))[0]``. What the model
    returns, or returns a view of, is computed in every call: the caller may write to it.
    """
    inputs = program.placeholders
    sizes = [node for node in program.calls(aten.sym_size.int) if node.args[0] in inputs]
    dependent = _size_dependent(program, sizes)
    results = [
        node
        for node in dependent
        if value(node) is not None and _outside(node, dependent) and not _is_returned(node)
    ]
    if not results:
        return
    graph = program.graph
    last = inputs[-1]
    for size in sizes:
        last.append(size)
        last = size
    cache = SizeCache(_part(program, sizes, dependent, results))
    with graph.inserting_after(last):
        cached = call(graph, cache.tensors, *sizes)
    last = cached
    for place, result in enumerate(results):
        with graph.inserting_after(last):
            last = call(graph, operator.getitem, cached, place)
        last.meta["val"] = value(result)
        for user in _outside(result, dependent):
            user.replace_input_with(result, last)
    program.sweep()


def _size_dependent(program: Program, sizes: Collection[Node]) -> dict[Node, None]:
    """Nodes that depend on sizes and weights alone, but not on weights alone; in graph order."""
    dependent: dict[Node, None] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or node in sizes or not is_pure(node):
            continue
        varying = [n for n in node.all_input_nodes if n.op != "get_attr"]
        if all(n in dependent or n in sizes for n in varying) and (
            varying or not node.all_input_nodes
        ):
            dependent[node] = None
    return dependent


def _outside(node: Node, dependent: Collection[Node]) -> list[Node]:
    return [user for user in node.users if user not in dependent]


def _is_returned(node: Node) -> bool:
    """Whether the model returns a node's tensor or a view of it."""
    return any(u.op == "output" or (_may_alias(u) and _is_returned(u)) for u in node.users)


def _may_alias(node: Node) -> bool:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return any(returned.alias_info is not None for returned in target._schema.returns)
    return True


def _part(
    program: Program, sizes: Sequence[Node], dependent: Collection[Node], results: Sequence[Node]
) -> Program:
    graph = Graph()
    tensors: dict[str, torch.Tensor] = {}
    copies = {size: graph.placeholder(f"size_{place}") for place, size in enumerate(sizes)}
    for node in program.graph.nodes:
        weight = node.op == "get_attr" and any(user in dependent for user in node.users)
        if weight or node in dependent:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {}  # the exporter's tensors without values take memory
        if weight:
            tensors[str(node.target)] = program.tensor(node)
    graph.output(tuple(copies[result] for result in results))
    return Program(graph, tensors)
