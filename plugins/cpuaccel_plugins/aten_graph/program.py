"""A model as a graph of aten operators, its tensors, and the passes over it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch.fx import Graph, Node

from cpuaccel import Release
from cpuaccel_plugins.aten_graph.nodes import is_call


@dataclass
class Program:
    """A graph, its tensors, and a record of what passes did to it."""

    graph: Graph  # "get_attr" nodes name tensors
    tensors: dict[str, torch.Tensor]  # shared with the model until a pass replaces them
    release: Release | None = None  # takes a packed weight from the model; None: the model keeps it
    fusions: Counter[str] = field(default_factory=Counter)
    left_alone: Counter[str] = field(default_factory=Counter)  # operators, by reason
    packed_weights: int = 0
    huge_page_bytes: int = 0
    released_weights: int = 0
    concatenated: dict[Node, list[Node]] = field(default_factory=dict)  # the parts of a weight
    linear_operators: dict[object, int] = field(default_factory=dict)
    """Fused linears other than oneDNN's, with the index of the weight among their arguments."""
    evidence: dict[str, int | float | str] = field(default_factory=dict)  # added by passes
    padding_computed: str | None = None  # why, if a backend asked to skip it

    @property
    def placeholders(self) -> list[Node]:
        """The input nodes, in order."""
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def calls(self, *targets: object) -> Iterator[Node]:
        """The nodes that call one of these functions, in order; the graph may change meanwhile."""
        return iter([node for node in self.graph.nodes if is_call(node, *targets)])

    def constant(self, node: object) -> torch.Tensor | None:
        """The tensor that a ``get_attr`` node names; None for any other node."""
        if isinstance(node, Node) and node.op == "get_attr":
            return self.tensors[str(node.target)]
        return None

    def tensor(self, node: object) -> torch.Tensor:
        """The tensor that a ``get_attr`` node names."""
        tensor = self.constant(node)
        assert tensor is not None
        return tensor

    def add_tensor(self, tensor: torch.Tensor, name: str, like: torch.Tensor | None = None) -> Node:
        """Add a tensor and its node; the graph's insertion point must be before its first use.

        Passes see the shape and dtype of ``like``, by default those of the tensor.
        """
        unique = name
        while unique in self.tensors:
            unique += "_"
        self.tensors[unique] = tensor
        node = self.graph.create_node("get_attr", unique)
        seen = tensor if like is None else like
        # On "meta", without memory: a dense weight is released as soon as it is packed.
        node.meta["val"] = torch.empty(tuple(seen.shape), dtype=seen.dtype, device="meta")
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Replace a node by another one of the same value, and remove it."""
        new.meta.setdefault("val", old.meta.get("val"))
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)

    def remove_if_unused(self, node: Node) -> bool:
        """Remove a tensor and its node if nothing uses it. True if it is gone."""
        if node.users:
            return False
        if self.tensors.pop(str(node.target), None) is not None:
            self.graph.erase_node(node)
        return True

    def sweep(self) -> None:
        """Remove the nodes that nothing uses, and the tensors that only they named."""
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op in ("call_function", "get_attr"):
                self.graph.erase_node(node)
        named = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for name in self.tensors.keys() - named:
            del self.tensors[name]


Pass: TypeAlias = Callable[[Program], None]
"""Changes a program in place. A pass with parameters is a ``functools.partial`` of one."""
