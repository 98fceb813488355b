"""Helpers to read and add nodes of a graph of aten operators."""

from collections.abc import Callable, Iterable
from typing import TypeGuard

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

SPLIT_OR_JOIN = (
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.cat.default,
)
"""Operators that take a tensor apart along their argument ``dim``, or put parts together."""


def is_call(node: object, *targets: object) -> TypeGuard[Node]:
    """Whether this is a node that calls one of these functions."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def call(graph: Graph, target: Callable[..., object], *args: object) -> Node:
    """Add a call at the graph's insertion point."""
    return graph.call_function(target, args)  # type: ignore[arg-type]


def argument(node: Node, name: str) -> object:
    """An argument of an aten operator by its name, or its default if it was not passed."""
    assert isinstance(node.target, torch._ops.OpOverload)
    declared = node.target._schema.arguments
    index = [argument.name for argument in declared].index(name)
    if index < len(node.args):
        return node.args[index]
    return node.kwargs.get(name, declared[index].default_value)


def walk(start: Iterable[Node], follow: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """The nodes that are reached from some nodes by following others, with these nodes."""
    reached: set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += follow(node)
    return reached


def value(node: object) -> torch.Tensor | None:
    """The fake tensor with a node's shape and dtype; None if the node yields no tensor."""
    fake = node.meta.get("val") if isinstance(node, Node) else None
    return fake if isinstance(fake, torch.Tensor) else None


def shape(node: object) -> torch.Size:
    """The shape of a node's tensor, with dynamic sizes as symbols."""
    fake = value(node)
    assert fake is not None
    return fake.shape


def example_shape(node: object) -> tuple[int, ...]:
    """The shape of a node's tensor in the example inputs."""
    return tuple(map(example_size, shape(node)))


def dtype(node: object) -> torch.dtype | None:
    """The dtype of a node's tensor."""
    fake = value(node)
    return None if fake is None else fake.dtype


def same_shape(one: object, other: object) -> bool:
    """Whether two nodes have the same shape for all values of the dynamic sizes."""
    first, second = value(one), value(other)
    return (
        first is not None
        and second is not None
        and len(first.shape) == len(second.shape)
        and all(map(same_size, first.shape, second.shape))
    )


def same_size(one: object, other: object) -> bool:
    """Whether two sizes are always equal. Adds no guard to the shape environment."""
    return symbol(one) == symbol(other)


def symbol(size: object) -> object:
    """A size as a number or a symbolic expression, to compare by."""
    return size.node.expr if isinstance(size, torch.SymInt) else size


def example_size(size: object) -> int:
    """The value of a size in the example inputs."""
    if isinstance(size, torch.SymInt):
        hint = size.node.hint
        return int(hint) if hint is not None else 1
    assert isinstance(size, int)
    return size
