"""After hooks, attributes or configurations of a model changed, the next call uses them."""

import copy
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Copying, Faithful, Opaque, batch, encoder

BACKENDS = ["faithful", "copying", "jit"]


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Copying, Faithful, Opaque)


class Adapted(torch.nn.Module):
    """A linear with adapters, in the way of peft."""

    def __init__(self) -> None:
        super().__init__()
        self.base = torch.nn.Linear(4, 4)
        self.added = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("one", "two")})
        self.active = ["one"]
        self.scaling = {"one": 1.0, "two": 2.0}
        self.disabled = False
        self.act: Callable[[torch.Tensor], torch.Tensor] = torch.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base(x)
        if not self.disabled:
            for name in self.active:
                output = output + self.scaling[name] * self.added[name](x)
        return self.act(output)


class Adapters(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = Adapted()
        self.norm = torch.nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.norm(self.body(x))
        return output


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

CHANGES: dict[str, Callable[[Adapters], object]] = {
    "switched": lambda m: setattr(m.body, "active", ["two"]),
    "switched in place": lambda m: m.body.active.append("two"),
    "scaled": lambda m: m.body.scaling.update(one=3.0),
    "disabled": lambda m: setattr(m.body, "disabled", True),
    "another function": lambda m: setattr(m.body, "act", torch.tanh),
    "an attribute of torch": lambda m: setattr(m.norm, "eps", 1.0),
    "a module replaced": lambda m: setattr(m, "norm", torch.nn.Identity()),
    "a forward replaced": lambda m: setattr(m.norm, "forward", lambda x: x * 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("through", ["original", "optimized"])
def test_changed_state_is_used_by_the_next_call(
    backend: str, change: Callable[[Adapters], object], through: str
) -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, [backend], example_inputs=X, strict=True)
    before = fast(X)
    change(model if through == "original" else cast(Adapters, fast))
    after = fast(X)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model(X).detach())
    fast(X)
    assert len(fast.variants) == 1
    assert fast.report.calls == {"optimized": 3}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hook_registered_later_is_run_by_the_original(backend: str) -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, [backend], example_inputs=X)
    fast(X)
    seen: list[torch.Tensor] = []
    handles = [
        model.body.register_forward_hook(lambda module, args, output: seen.append(output)),
        model.norm.register_forward_hook(lambda module, args, output: output * 2),
    ]
    torch.testing.assert_close(fast(X), model(X).detach())
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1].detach())
    assert fast.report.calls == {"optimized": 1, "fallback:not_applied": 1}
    assert "forward hook was registered on body" in fast.report.variants[-1].outcomes[0].reason
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(fast(X), model(X).detach())
    assert fast.report.calls["optimized"] == 2
    assert len(seen) == 2


def test_a_hook_registered_later_is_noticed_by_strict() -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=X, strict=True)
    model.norm.register_forward_pre_hook(lambda module, args: None)
    with pytest.raises(cpuaccel.StepError, match="hook was registered on norm"):
        fast(X)


def test_a_global_hook_is_run_by_the_original() -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, ["opaque"], example_inputs=X)
    seen: list[str] = []
    handle = register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        fast(X)
    finally:
        handle.remove()
    assert {"Adapters", "Adapted", "LayerNorm", "Linear"} <= {*seen}


@pytest.mark.parametrize("backend", ["jit", "opaque"])
def test_a_hook_of_the_caller_refuses_a_step_that_captures(backend: str) -> None:
    model = encoder()
    seen: list[object] = []
    model.norm.register_forward_hook(lambda *_: seen.append(None))
    assert not cpuaccel.explain(model, [backend]).steps[0].verdict
    fast = cpuaccel.optimize(model, ["faithful", backend], example_inputs=batch())
    assert [o.status for o in fast.report.outcomes] == ["applied", "skipped"]
    assert "forward hook on norm" in fast.report.outcomes[1].reason
    seen.clear()
    fast(**batch())
    assert len(seen) == 1
    fast = cpuaccel.optimize(model, [backend])
    seen.clear()
    fast(**batch())
    assert len(seen) == 1


@pytest.mark.parametrize("normed", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_hooks_of_torch_are_part_of_the_model(
    normed: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(normed(torch.nn.Linear(4, 4)), torch.nn.ReLU()).eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=X, strict=True)
    for _ in range(2):
        torch.testing.assert_close(fast(X), model(X).detach())
    assert len(fast.report.variants) == 1
    assert fast.report.calls == {"optimized": 2}


class Recorder:
    """Collects outputs in a list of its own."""

    def __init__(self) -> None:
        self.outputs: list[torch.Tensor] = []

    def __call__(self, module: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        self.outputs.append(output)

    def method(self, module: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        self.outputs.append(output)


@pytest.mark.parametrize("kind", ["object", "method"])
def test_a_recorder_gets_the_outputs(kind: str) -> None:
    model, recorder = Adapters().eval(), Recorder()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=X)
    model.norm.register_forward_hook(recorder if kind == "object" else recorder.method)
    output = fast(X)
    assert len(recorder.outputs) == 1
    assert torch.equal(recorder.outputs[0], output)


class Caches(torch.nn.Module):
    """Keeps what it computed in attributes, as many models do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.calls = 0
        self.last: torch.Tensor | None = None
        self.flag = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x.detach()
        self.lazy = self.calls
        output: torch.Tensor = self.linear(x)
        return -output if self.flag else output


def test_attributes_that_the_model_writes_itself_do_not_rebuild() -> None:
    model = Caches().eval()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=X, strict=True)
    for _ in range(3):
        torch.testing.assert_close(fast(X), model(X).detach())
    assert len(fast.report.variants) == 1
    model.flag = True
    torch.testing.assert_close(fast(X), model(X).detach())
    assert len(fast.report.variants) == 2


class Hidden(torch.nn.Module):
    """Calls modules that torch does not register."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.blocks = [Adapted(), {"last": torch.nn.Linear(4, 4)}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, last = self.blocks
        assert isinstance(first, Adapted)
        assert isinstance(last, dict)
        output: torch.Tensor = last["last"](first(self.linear(x)))
        return output


HIDDEN: dict[str, Callable[[Hidden], object]] = {
    "weight": lambda m: m.blocks[1]["last"].weight.detach().mul_(2),  # type: ignore[index]
    "module": lambda m: m.blocks[1].update(last=torch.nn.Linear(4, 2)),  # type: ignore[union-attr]
    "attribute": lambda m: setattr(m.blocks[0], "disabled", True),
}


@pytest.mark.parametrize("change", HIDDEN.values(), ids=list(HIDDEN))
def test_modules_in_lists_and_dicts_are_watched(change: Callable[[Hidden], object]) -> None:
    torch.manual_seed(0)
    model = Hidden().eval()
    fast = cpuaccel.optimize(model, ["copying"], example_inputs=X, strict=True)
    fast(X)
    change(model)
    torch.testing.assert_close(fast(X), model(X).detach())
    assert len(fast.report.variants) == 2


def test_refresh_uses_what_calls_do_not_notice() -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, ["copying"], example_inputs=X, strict=True)
    before = fast(X)
    model.body.base.weight.data.mul_(-3)
    assert torch.equal(fast(X), before)
    fast.refresh()
    torch.testing.assert_close(fast(X), model(X).detach())


def test_new_attributes_of_the_optimized_model_stay_its_own() -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=X)
    fast.note = "mine"
    assert not hasattr(model, "note")
    del fast.note
    assert not hasattr(fast, "note")
    fast.norm = torch.nn.Identity()
    assert model.norm is fast.norm
    del fast.norm
    assert not hasattr(model, "norm")


def test_a_copy_keeps_what_was_changed() -> None:
    model = Adapters().eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=X, strict=True)
    fast(X)
    model.body.disabled = True
    copied = copy.deepcopy(fast)
    torch.testing.assert_close(copied(X), model(X).detach())
