"""Pass: what depends on sizes alone is kept from one call to the next of the same sizes."""

import operator
from collections.abc import Callable, Collection, Sequence

import torch
from torch.fx import Graph, Node

from cpuaccel_plugins.aten_graph.cleanup import is_pure
from cpuaccel_plugins.aten_graph.codegen import emit
from cpuaccel_plugins.aten_graph.program import Program, aten, call, value

Values = tuple[torch.Tensor, ...]


class Kept:
    """Tensors made of sizes, and for which sizes they were made last."""

    def __init__(self, make: Callable[..., Values]) -> None:
        """Make nothing yet.

        Args:
            make: takes the sizes by position; what it returns is never changed in place.
        """
        self._make = make
        self._last: tuple[tuple[int, ...], Values] | None = None

    def of(self, *sizes: int) -> Values:
        """The tensors for these sizes. Threads with other sizes only make them more often."""
        last = self._last
        if last is None or last[0] != sizes:
            last = self._last = sizes, self._make(*sizes)
        return last[1]


def keep_what_sizes_decide(program: Program) -> None:
    """Make positions, windows, relative positions' biases and their like once for each size.

    They are made of weights and of the inputs' sizes; those of the last call are kept. What the
    model returns, or returns a view of, is made anew in every call: the caller may write to it.
    """
    sizes = [n for n in program.calls(aten.sym_size.int) if _is_input(n.args[0])]
    decided = _decided(program, sizes)
    results = [
        node
        for node in decided
        if value(node) is not None and _outside(node, decided) and not _handed_out(node)
    ]
    if not results:
        return
    graph = program.graph
    last = program.placeholders[-1]
    for size in sizes:
        last.append(size)
        last = size
    with graph.inserting_after(last):
        kept = call(graph, Kept(_function(program, sizes, decided, results)).of, *sizes)
    last = kept
    for place, result in enumerate(results):
        with graph.inserting_after(last):
            last = call(graph, operator.getitem, kept, place)
        last.meta["val"] = value(result)
        for user in _outside(result, decided):
            user.replace_input_with(result, last)
    program.sweep()


def _is_input(node: object) -> bool:
    """Whether a node stands for one of the model's inputs."""
    return isinstance(node, Node) and node.op == "placeholder"


def _decided(program: Program, sizes: Collection[Node]) -> dict[Node, None]:
    """What depends on sizes and weights alone, and not on weights alone; in the graph's order."""
    decided: dict[Node, None] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or node in sizes or not is_pure(node):
            continue
        varying = [n for n in node.all_input_nodes if n.op != "get_attr"]
        if all(n in decided or n in sizes for n in varying) and (
            varying or not node.all_input_nodes
        ):
            decided[node] = None
    return decided


def _outside(node: Node, decided: Collection[Node]) -> list[Node]:
    return [user for user in node.users if user not in decided]


def _handed_out(node: Node) -> bool:
    """Whether the model returns its memory."""
    return any(u.op == "output" or (_may_alias(u) and _handed_out(u)) for u in node.users)


def _may_alias(node: Node) -> bool:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return any(returned.alias_info is not None for returned in target._schema.returns)
    return True


def _function(
    program: Program, sizes: Sequence[Node], decided: Collection[Node], results: Sequence[Node]
) -> Callable[..., Values]:
    graph = Graph()
    copies = {size: graph.placeholder(f"size_{place}") for place, size in enumerate(sizes)}
    for node in program.graph.nodes:
        weight = node.op == "get_attr" and any(user in decided for user in node.users)
        if weight or node in decided:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[result] for result in results))
    return emit(Program(graph, program.tensors))
