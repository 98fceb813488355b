"""A snapshot restores everything that a step may change in a module tree."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.building.snapshot import Snapshot
from cpuaccel.model.state import WatchedState
from cpuaccel.model.weights import WatchedWeights


class Node(torch.nn.Module):
    """A module with something of every kind."""

    def __init__(self, children: list["Node"]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.norm = torch.nn.BatchNorm1d(2)
        self.below = torch.nn.ModuleList(children)
        self.names = ["a", ["b"]]
        self.table: dict[str, object] = {"a": 1, "b": {"c": {2}}}
        self.flag = True
        self.config = SimpleNamespace(kind="sdpa", sub=SimpleNamespace(sizes=[1]))
        self.register_forward_hook(_hook)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.linear(x))
        for module in self.below:
            x = module(x)
        return x if self.flag else -x


class Other(Node):
    pass


def _hook(*_: object) -> None:
    pass


trees = st.recursive(
    st.builds(list), lambda children: st.lists(children, max_size=3), max_leaves=5
).map(lambda shape: _tree(shape))


def _tree(shape: list[object]) -> Node:
    return Node([_tree(inner) for inner in shape if isinstance(inner, list)])


def _swap(tensor: torch.Tensor) -> None:
    tensor.data = torch.zeros(3)


CHANGES: dict[str, Callable[[Node], object]] = {
    "hook": lambda n: n.linear.register_forward_hook(_hook),
    "pre-hook": lambda n: n.register_forward_pre_hook(_hook),
    "hooks removed": lambda n: n._forward_hooks.clear(),
    "flag": lambda n: setattr(n, "flag", False),
    "new attribute": lambda n: setattr(n, "extra", 1),
    "deleted attribute": lambda n: delattr(n, "names"),
    "element": lambda n: n.names.append("c"),
    "nested element": lambda n: n.table["b"]["c"].add(3),  # type: ignore[index]
    "config": lambda n: setattr(n.config, "kind", "packed"),
    "nested config": lambda n: n.config.sub.sizes.append(2),
    "config replaced": lambda n: setattr(n, "config", SimpleNamespace(kind="packed")),
    "submodule replaced": lambda n: setattr(n, "linear", torch.nn.Identity()),
    "submodule added": lambda n: n.add_module("more", torch.nn.Linear(1, 1)),
    "submodules removed": lambda n: setattr(n, "below", torch.nn.ModuleList()),
    "list of modules": lambda n: n.below.append(torch.nn.Identity()),
    "parameter replaced": lambda n: setattr(
        n.linear, "weight", torch.nn.Parameter(torch.zeros(2, 2))
    ),
    "parameter removed": lambda n: n.linear.register_parameter("weight", None),
    "parameter's memory": lambda n: _swap(n.linear.weight),
    "parameter cast": lambda n: n.linear.double(),
    "transposed": lambda n: setattr(n.linear.weight, "data", n.linear.weight.data.t()),
    "buffer": lambda n: n.register_buffer("more", torch.ones(1)),
    "buffer removed": lambda n: n.norm._buffers.clear(),
    "forward": lambda n: setattr(n, "forward", _hook),
    "class": lambda n: setattr(n, "__class__", Other),
    "vars": lambda n: object.__setattr__(n, "__dict__", dict(vars(n))),
}


@given(trees, st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 9)), max_size=6))
def test_all_changes_are_undone(tree: Node, changes: list[tuple[str, int]]) -> None:
    tree.eval()
    x = torch.randn(3, 2)
    before = tree(x)
    nodes = [module for module in tree.modules() if isinstance(module, Node)]
    state, weights = WatchedState(tree), WatchedWeights(tree)
    types = [type(module) for module in tree.modules()]
    snapshot = Snapshot(tree, weights=True)
    for name, index in changes:
        try:
            CHANGES[name](nodes[index % len(nodes)])
        except AttributeError:  # an earlier change removed it
            continue
    assert snapshot.restore() == []
    assert state.written() == []
    assert not weights.changed()
    assert [type(module) for module in tree.modules()] == types
    assert torch.equal(tree(x), before)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_one(name: str) -> None:
    tree = Node([Node([])])
    state, weights = WatchedState(tree), WatchedWeights(tree)
    CHANGES[name](tree)
    undetected = {"class", "vars", "transposed"}
    assert name in undetected or state.changed() or weights.changed()


WRITES: dict[str, Callable[[torch.Tensor], object]] = {
    "in place": lambda t: t.detach().mul_(2),
    "through data": lambda t: t.data.mul_(2),
    "one element": lambda t: t.detach()[1, 1].fill_(3),
    "not a number": lambda t: t.detach().fill_(math.nan),
    "freed": lambda t: getattr(t, "untyped_storage", t.storage)().resize_(0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_overwritten_weights_are_named(write: Callable[[torch.Tensor], object]) -> None:
    tree = Node([Node([])])
    snapshot = Snapshot(tree, weights=True)
    write(tree.below[0].linear.weight)  # type: ignore[union-attr, arg-type]
    assert snapshot.restore() == ["below.0.linear.weight"]


def test_weights_that_the_model_writes_are_not_named() -> None:
    tree = Node([])
    written = tree.norm.running_mean
    snapshot = Snapshot(tree, weights=True, ignored=lambda tensor: tensor is written)
    assert written is not None
    written.add_(1)
    assert snapshot.restore() == []


def test_weights_with_nan_are_unchanged() -> None:
    tree = Node([])
    torch.nn.init.constant_(tree.linear.weight, math.nan)
    assert Snapshot(tree, weights=True).restore() == []


def test_an_unchanged_tree_is_not_touched() -> None:
    tree = Node([Node([])])
    tables = [id(vars(module)) for module in tree.modules()]
    Snapshot(tree, weights=True).restore()
    assert [id(vars(module)) for module in tree.modules()] == tables
    assert len({*itertools.chain(tables)}) == len(tables)
