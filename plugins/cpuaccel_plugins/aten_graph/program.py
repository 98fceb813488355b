"""A model as a graph of aten operators, and how passes read and change it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch.fx import Graph, Node

from cpuaccel import Release

aten = torch.ops.aten

Shape = tuple[int | torch.SymInt, ...]


@dataclass
class Program:
    """A graph, the tensors that it holds, and what was done to it.

    Attributes:
        graph: placeholders are the model's input tensors; ``get_attr`` nodes name ``tensors``.
        tensors: weights and buffers by name, shared with the model until a pass replaces them.
        fusions: how often each fusion took place, by its name.
        left: what was left as it was, by the reason.
        packed: weights that were packed.
        huge: bytes of them in huge pages.
        joined: of a weight that passes joined, what it was joined of, in order.
        released: weights of the model's own that were let go of for it.
        release: lets go of one; None where the model keeps them.
        operators: fused linears other than oneDNN's own: what is called, and which of its
            arguments is the weight.
    """

    graph: Graph
    tensors: dict[str, torch.Tensor]
    fusions: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    packed: int = 0
    huge: int = 0
    joined: dict[Node, list[Node]] = field(default_factory=dict)
    released: int = 0
    release: Release | None = None
    operators: dict[object, int] = field(default_factory=dict)

    @property
    def placeholders(self) -> list[Node]:
        """The input nodes, in order."""
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def calls(self, *targets: object) -> Iterator[Node]:
        """The nodes that call one of these functions, in order; the graph may change meanwhile."""
        return iter([node for node in self.graph.nodes if is_call(node, *targets)])

    def constant(self, node: object) -> torch.Tensor | None:
        """The tensor that a node stands for, None where it is no held tensor."""
        if isinstance(node, Node) and node.op == "get_attr":
            return self.tensors[str(node.target)]
        return None

    def held(self, node: object) -> torch.Tensor:
        """The tensor that a node stands for, where it surely holds one."""
        tensor = self.constant(node)
        assert tensor is not None
        return tensor

    def hold(self, tensor: torch.Tensor, name: str, like: torch.Tensor | None = None) -> Node:
        """Add a tensor; call it with the graph's insertion point before its first use.

        Args:
            tensor: to be held.
            name: is made unique.
            like: what passes are told that it looks like; by default itself.
        """
        unique = name
        while unique in self.tensors:
            unique += "_"
        self.tensors[unique] = tensor
        node = self.graph.create_node("get_attr", unique)
        seen = tensor if like is None else like
        # Without memory: a dense weight is let go as soon as it is packed.
        node.meta["val"] = torch.empty(tuple(seen.shape), dtype=seen.dtype, device="meta")
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Let the users of a node use another one, of the same value, and remove it."""
        new.meta.setdefault("val", old.meta.get("val"))
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)

    def drop(self, held: Node) -> bool:
        """Forget a held tensor, if nothing uses it. Whether it is forgotten, now or before."""
        if held.users:
            return False
        if self.tensors.pop(str(held.target), None) is not None:
            self.graph.erase_node(held)
        return True

    def sweep(self) -> None:
        """Remove the nodes that nothing uses, and the tensors that only they named."""
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op in ("call_function", "get_attr"):
                self.graph.erase_node(node)
        named = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for name in self.tensors.keys() - named:
            del self.tensors[name]


def is_call(node: object, *targets: object) -> TypeGuard[Node]:
    """Whether it is a node that calls one of these functions."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def call(graph: Graph, target: Callable[..., object], *args: object) -> Node:
    """Add a call at the graph's insertion point."""
    return graph.call_function(target, args)  # type: ignore[arg-type]


def argument(node: Node, index: int, name: str, default: object = None) -> object:
    """An argument, given by position or by name."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def value(node: object) -> torch.Tensor | None:
    """The fake tensor that tells a node's shape and dtype; None where it yields no tensor."""
    found = node.meta.get("val") if isinstance(node, Node) else None
    return found if isinstance(found, torch.Tensor) else None


def dtype(node: object) -> torch.dtype | None:
    """The dtype of a node's tensor."""
    found = value(node)
    return None if found is None else found.dtype


def same_shape(one: object, other: object) -> bool:
    """Whether two nodes surely have the same shape, whatever the sizes left open come to."""
    first, second = value(one), value(other)
    return (
        first is not None
        and second is not None
        and len(first.shape) == len(second.shape)
        and all(map(same_size, first.shape, second.shape))
    )


def same_size(one: object, other: object) -> bool:
    """Whether two sizes are surely equal. Asks no guard of the shape environment."""
    return symbol(one) == symbol(other)


def symbol(size: object) -> object:
    """What stands for a size: a number, or a symbolic expression."""
    return size.node.expr if isinstance(size, torch.SymInt) else size


def hint(size: object) -> int:
    """A size as it was in the example."""
    if isinstance(size, torch.SymInt):
        found = size.node.hint
        return int(found) if found is not None else 1
    assert isinstance(size, int)
    return size
