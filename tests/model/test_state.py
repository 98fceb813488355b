"""Changed hooks, attributes and configurations are detected, and nothing else is."""

import enum
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_hook

from cpuaccel.model.copying import shared_copy
from cpuaccel.model.state import WatchedState


class Kind(enum.Enum):
    FIRST = 1
    SECOND = 2


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.norm = torch.nn.LayerNorm(2)
        self.flag = True
        self.scale: float | None = 0.5
        self.kind = Kind.FIRST
        self.active = ["one"]
        self.scaling = {"one": 1.0}
        self.sizes = (2, [3])
        self.names = {"a"}
        self.act: Callable[[torch.Tensor], torch.Tensor] = torch.nn.functional.relu
        self.offset = torch.zeros(2)
        self.unit = torch.ones(1)
        self.table = list(range(1000))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(layers=2, sub=SimpleNamespace(rate=0.1, labels={0: "x"}))
        self.configs = {"one": SimpleNamespace(rank=4)}
        self.inner = Inner()


def hook(*_: object) -> None:
    pass


CHANGES: dict[str, tuple[str, Callable[[Model], object]]] = {
    "a flag": ("inner.flag", lambda m: setattr(m.inner, "flag", False)),
    "a number": ("inner.scale", lambda m: setattr(m.inner, "scale", 0.25)),
    "a number to none": ("inner.scale", lambda m: setattr(m.inner, "scale", None)),
    "an enum": ("inner.kind", lambda m: setattr(m.inner, "kind", Kind.SECOND)),
    "a list replaced": ("inner.active", lambda m: setattr(m.inner, "active", ["two"])),
    "a list appended to": ("inner.active", lambda m: m.inner.active.append("two")),
    "an element": ("inner.active", lambda m: m.inner.active.__setitem__(0, "two")),
    "a dict": ("inner.scaling", lambda m: m.inner.scaling.update(one=2.0)),
    "a list in a tuple": ("inner.sizes", lambda m: m.inner.sizes[1].append(1)),
    "a set": ("inner.names", lambda m: m.inner.names.add("b")),
    "a function": ("inner.act", lambda m: setattr(m.inner, "act", torch.tanh)),
    "a long list": ("inner.table", lambda m: m.inner.table.append(1)),
    "a tensor written": ("inner.offset", lambda m: m.inner.offset.add_(1)),
    "a tensor replaced": ("inner.offset", lambda m: setattr(m.inner, "offset", torch.zeros(2))),
    "an equal element": ("inner.unit", lambda m: setattr(m.inner, "unit", torch.ones(1))),
    "an attribute added": ("inner.extra", lambda m: setattr(m.inner, "extra", 1)),
    "an attribute deleted": ("inner.flag", lambda m: delattr(m.inner, "flag")),
    "an attribute of torch": ("inner.norm.eps", lambda m: setattr(m.inner.norm, "eps", 1.0)),
    "a forward": ("inner.linear.forward", lambda m: setattr(m.inner.linear, "forward", hook)),
    "a configuration": ("config.layers", lambda m: setattr(m.config, "layers", 3)),
    "a nested one": ("config.sub.rate", lambda m: setattr(m.config.sub, "rate", 0.2)),
    "a dict of a nested one": ("config.sub.labels", lambda m: m.config.sub.labels.update({1: "y"})),
    "one in a dict": ("configs['one'].rank", lambda m: setattr(m.configs["one"], "rank", 8)),
    "a configuration replaced": ("config", lambda m: setattr(m, "config", SimpleNamespace())),
    "a hook": ("inner.linear._forward_hooks", lambda m: m.inner.linear.register_forward_hook(hook)),
    "a pre-hook": ("_forward_pre_hooks", lambda m: m.register_forward_pre_hook(hook)),
}


@pytest.mark.parametrize(("path", "change"), CHANGES.values(), ids=list(CHANGES))
def test_a_change_is_detected_and_named(path: str, change: Callable[[Model], object]) -> None:
    model = Model()
    state = WatchedState(model)
    assert not state.changed()
    assert state.written() == []
    change(model)
    assert state.changed()
    assert state.written() == [path]
    state.reset()
    assert not state.changed()


def test_a_removed_or_replaced_hook_is_detected() -> None:
    model = Model()
    handle = model.inner.register_forward_hook(hook)
    state = WatchedState(model)
    model.register_forward_hook(lambda *_: None).remove()
    assert not state.changed()
    handle.remove()
    assert state.changed()
    model.inner.register_forward_hook(lambda *_: None)
    assert state.changed()


def test_a_global_hook_is_detected() -> None:
    state = WatchedState(Model())
    handle = register_module_forward_hook(hook)
    assert state.changed()
    handle.remove()
    assert not state.changed()


def test_what_does_not_change_the_outputs_is_not_a_change() -> None:
    model = Model()
    model.generation_config = SimpleNamespace(max_length=5, nested=SimpleNamespace(top_k=3))
    state = WatchedState(model)
    model.generation_config.max_length = 6
    model.generation_config.nested.top_k = 4
    assert not state.changed()
    model.train()
    model.eval()
    model.requires_grad_(False)
    model.inner.flag = True
    model.inner.active = ["one"]
    model.generation_config = SimpleNamespace(max_length=5)
    model.inner.linear(torch.ones(1, 2)).sum()
    assert state.written() == []


def test_written_attributes_can_be_ignored() -> None:
    model = Model()
    state = WatchedState(model)
    model.inner.scale = 0.0
    model.inner.extra = 1
    model.config.layers = 5
    names = ["config.layers", "inner.extra", "inner.scale"]
    assert sorted(state.ignore_written()) == names
    assert not state.changed()
    model.inner.scale = 1.0
    model.config.layers = 6
    del model.inner.extra
    assert not state.changed()
    assert not state.for_copy(shared_copy(model)).changed()
    model.inner.flag = False
    assert state.changed()
    assert state.written() == ["inner.flag"]


def test_ignoring_an_attribute_keeps_another_change() -> None:
    model = Model()
    state = WatchedState(model)
    model.inner.flag = False
    state.ignore(["inner.scale"])
    assert state.changed()


def test_an_attribute_that_is_not_equal_to_itself_is_not_watched() -> None:
    class Unequal(list[int]):
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    model = Model()
    model.inner.odd = Unequal([1])
    state = WatchedState(model)
    assert not state.changed()
    model.inner.flag = False
    assert state.changed()


def test_an_object_that_holds_modules_is_watched_by_identity_only() -> None:
    """A trainer for example, whose counters change in every step."""
    model = Model()
    trainer = SimpleNamespace(step=0, model=torch.nn.Linear(1, 1))
    model.trainer = trainer
    state = WatchedState(model)
    trainer.step += 1
    assert not state.changed()
    model.trainer = SimpleNamespace()
    assert state.changed()


def test_an_object_that_refers_to_itself_can_be_watched() -> None:
    model = Model()
    model.config.itself = model.config
    state = WatchedState(model)
    model.config.layers = 0
    assert state.written() == ["config.layers"]


@pytest.mark.filterwarnings("ignore:.*jit.*deprecated")
def test_submodules_that_are_scripts_can_be_watched() -> None:
    model = torch.nn.Sequential(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), Inner())
    state = WatchedState(model)
    assert not state.changed()
    cast(Inner, model[1]).flag = False
    assert state.changed()


Value = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=1)
Values = st.recursive(
    Value,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=1), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from("abcde"), Values, min_size=1), st.data())
def test_any_attribute_may_change(attributes: dict[str, object], data: st.DataObject) -> None:
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    for name, value in attributes.items():
        setattr(model[1], name, value)
    state = WatchedState(model)
    assert not state.changed()
    name, value = data.draw(st.sampled_from("abcdef")), data.draw(Values)
    before = attributes.get(name, attributes)
    setattr(model[1], name, value)
    assert state.changed() == (before is not value and before != value)
    assert state.written() == ([f"1.{name}"] if state.changed() else [])
