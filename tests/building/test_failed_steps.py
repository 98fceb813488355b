"""A step that fails, or is interrupted, leaves nothing behind in the model."""

import copy
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, BackendError, Context
from cpuaccel.model.state import WatchedState
from cpuaccel.model.weights import WatchedWeights
from tests.conftest import Offer
from tests.fake_backends import Faithful, Fake, batch, encoder


def ruin(model: torch.nn.Module) -> None:
    """Change everything that a step that works in place may change."""
    model.register_forward_hook(lambda module, args, output: output)
    model.feed.register_forward_pre_hook(lambda module, args: (args[0] * 2,))  # type: ignore[union-attr]
    model.config.attention = "packed"  # type: ignore[union-attr]
    model.flags.append("packed")  # type: ignore[operator, union-attr]
    model.feed.forward = lambda x: x  # type: ignore[union-attr]
    model.feed = torch.nn.Identity()
    model.embedding.weight.data = torch.zeros(1, 1)  # type: ignore[union-attr]
    model.norm = torch.nn.LayerNorm(16)


class Failing(Fake):
    name = "failing"
    error: BaseException = BackendError("not today", "Leave it out")

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        ruin(model if context.inplace else copy.deepcopy(model))
        raise self.error


class Refusing(Failing):
    name = "refusing"
    error = BackendError("unsupported", "Leave it out", skipped=True)


class Raising(Failing):
    name = "raising"
    error = RuntimeError("no")


class Wrong(Fake):
    name = "wrong"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        model = model if context.inplace else copy.deepcopy(model)
        with torch.no_grad():
            ruin(model)
        return Applied(model, evidence={"same": 1})


class Messy(Fake):
    """Leaves hooks and flags on the model although it may not change it."""

    name = "messy"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        model.feed.register_forward_hook(lambda module, args, output: output * 2)  # type: ignore[union-attr]
        model.config.attention = "packed"  # type: ignore[union-attr]
        raise BackendError("not today", "Leave it out")


class MessyButApplied(Messy):
    name = "messy_but_applied"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        applied = copy.deepcopy(model)
        try:
            super().apply(model, context)
        except BackendError:
            return Applied(applied, evidence={"same": 1})
        raise AssertionError


class Seeing(Fake):
    """Records whether the model that it gets is clean."""

    name = "seeing"
    seen: ClassVar[list[object]] = []

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        self.seen.append((model.config.attention, len(model.feed._forward_hooks), model.flags))  # type: ignore[union-attr, arg-type]
        return super().apply(model, context)


class Overwriting(Fake):
    name = "overwriting"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        model.norm.weight.data.mul_(2)  # type: ignore[union-attr, operator]
        raise BackendError("not today", "Leave it out")


class Marking(Fake):
    """Works in place, rightly."""

    name = "marking"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        model.marked = True
        return Applied(model, evidence={"marked": 1})


FAILING = [Failing, Refusing, Raising, Wrong]


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    Seeing.seen.clear()
    offer(*FAILING, Messy, MessyButApplied, Seeing, Overwriting, Marking, Faithful)


class Before:
    """A model, and what it was before."""

    def __init__(self) -> None:
        self.model = encoder()
        self.model.config = SimpleNamespace(attention="sdpa")
        self.model.flags = ["plain"]
        self.output = self.run()
        self.state, self.weights = WatchedState(self.model), WatchedWeights(self.model)

    def run(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(**batch()).pooled  # type: ignore[no-any-return]

    def check(self) -> None:
        assert self.state.written() == []
        assert not self.weights.changed()
        assert torch.equal(self.run(), self.output)


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
@pytest.mark.parametrize("backend", [cls.name for cls in FAILING])
@pytest.mark.parametrize("then", [[], ["seeing"], ["jit"]], ids=["alone", "faithful", "jit"])
def test_a_failed_step_leaves_nothing_behind(backend: str, then: list[str], inplace: bool) -> None:
    before = Before()
    fast = cpuaccel.optimize(
        before.model, [backend, *then], example_inputs=batch(), inplace=inplace
    )
    assert fast.report.outcomes[0].status in ("failed", "skipped")
    assert fast.report.applied == tuple(then)
    before.check()
    assert torch.allclose(fast(**batch()).pooled, before.output, atol=1e-6)
    assert Seeing.seen in ([], [("sdpa", 0, ["plain"])])
    fast(input_ids=batch()["input_ids"])
    before.check()


@pytest.mark.parametrize("backend", [cls.name for cls in FAILING])
def test_with_strict_nothing_of_any_step_is_left(backend: str) -> None:
    before = Before()
    with pytest.raises(cpuaccel.StepError):
        cpuaccel.optimize(
            before.model, ["marking", backend], example_inputs=batch(), inplace=True, strict=True
        )
    before.check()


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
def test_an_interrupted_step_leaves_nothing_behind(
    inplace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "error", KeyboardInterrupt())
    before = Before()
    fast = cpuaccel.optimize(before.model, ["marking", "failing"], inplace=inplace)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fast(**batch())
        before.check()
    monkeypatch.undo()
    assert torch.equal(fast(**batch()).pooled, before.output)
    assert fast.report.applied == ("marking",)


@pytest.mark.parametrize("backend", ["messy", "messy_but_applied"])
def test_what_a_step_leaves_on_the_model_that_it_may_not_change_is_removed(backend: str) -> None:
    before = Before()
    fast = cpuaccel.optimize(before.model, [backend, "seeing"], example_inputs=batch())
    assert Seeing.seen == [("sdpa", 0, ["plain"])]
    assert torch.equal(fast(**batch()).pooled, before.output)
    assert torch.equal(fast._reference.eager(**batch()).pooled, before.output)
    before.check()


def test_overwritten_weights_are_reported() -> None:
    model = encoder()
    with pytest.raises(cpuaccel.StepError, match=r"overwritten in memory \(norm\.weight\)"):
        cpuaccel.optimize(model, ["overwriting"], example_inputs=batch(), inplace=True)


def test_a_step_before_the_one_that_fails_stays() -> None:
    before = Before()
    fast = cpuaccel.optimize(
        before.model, ["marking", "wrong"], example_inputs=batch(), inplace=True
    )
    assert fast.report.applied == ("marking",)
    assert before.state.written() == ["marked"]
    fast(**batch())
    assert len(fast.report.variants) == 1
