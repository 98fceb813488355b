"""Optimized models inside other models, optimized again, traced and called from hooks."""

from collections.abc import Callable

import pytest
import torch

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Faithful, Opaque, batch, encoder
from tests.required import requires


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Faithful, Opaque)


class Head(torch.nn.Module):
    """A model with another one as a submodule."""

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body
        self.linear = torch.nn.Linear(16, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        pooled = self.body(input_ids=input_ids, attention_mask=attention_mask).pooled
        output: torch.Tensor = self.linear(pooled)
        return output


ONEDNN = pytest.param("onednn", marks=requires("torch>=2.6"))


@pytest.mark.parametrize("inner", ["faithful", "jit", ONEDNN])
@pytest.mark.parametrize("outer", ["faithful", "opaque", "jit", ONEDNN])
def test_an_optimized_submodule_of_an_optimized_model_is_used(inner: str, outer: str) -> None:
    body = cpuaccel.optimize(encoder(), [inner], example_inputs=batch(), strict=True)
    plain, model = Head(encoder()).eval(), Head(body).eval()
    plain.linear = model.linear
    fast = cpuaccel.optimize(model, [outer], example_inputs=batch(), strict=True)
    for size in (2, 3):
        expected = plain(**batch(size)).detach()
        torch.testing.assert_close(fast(**batch(size)), expected, rtol=1e-4, atol=1e-5)
    assert fast.report.calls == {"optimized": 2}
    with torch.no_grad():
        torch.testing.assert_close(model(**batch()), plain(**batch()), rtol=1e-4, atol=1e-5)
    assert set(body.report.calls) == {"optimized"}


def test_an_optimized_model_can_be_optimized_again() -> None:
    model = encoder()
    once = cpuaccel.optimize(model, ["jit"], example_inputs=batch(), strict=True)
    twice = cpuaccel.optimize(once, ["opaque"], example_inputs=batch(), strict=True)
    torch.testing.assert_close(twice(**batch(3)).pooled, model(**batch(3)).pooled.detach())
    assert twice.report.calls == {"optimized": 1}


def traced(fast: torch.nn.Module) -> Callable[..., object]:
    ids, mask = batch().values()
    script: Callable[..., object] = torch.jit.trace(fast, (ids, mask), check_trace=False)
    return script


def exported(fast: torch.nn.Module) -> Callable[..., object]:
    return torch.export.export(fast, (), batch(), strict=False).module()


def compiled(fast: torch.nn.Module) -> Callable[..., object]:
    compiled_model: Callable[..., object] = torch.compile(fast, backend="aot_eager")
    return compiled_model


@pytest.mark.filterwarnings("ignore")  # deprecations inside torch
@pytest.mark.parametrize(
    "capture",
    [
        traced,
        pytest.param(exported, marks=requires("torch>=2.6")),
        pytest.param(compiled, marks=requires("torch>=2.13")),
    ],
)
def test_a_captured_call_runs_the_original(
    capture: Callable[[torch.nn.Module], Callable[..., object]],
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch(), strict=True)
    output = capture(fast)(**batch())
    torch.testing.assert_close(output[1].detach(), model(**batch()).pooled.detach())  # type: ignore[index]
    assert len(fast.report.variants) == 1
    assert fast.report.calls == {}


def test_a_hook_that_calls_the_model_while_it_is_built_runs_the_original() -> None:
    model = encoder()
    outputs: list[torch.Tensor] = []
    depth: list[None] = []

    def hook(*_: object) -> None:
        if len(depth) < 2:
            depth.append(None)
            outputs.append(fast(input_ids=batch()["input_ids"]).pooled)

    model.feed.register_forward_hook(hook)
    fast = cpuaccel.optimize(model, ["faithful"])
    output = fast(**batch()).pooled
    torch.testing.assert_close(output, model(**batch()).pooled.detach())
    expected = model(input_ids=batch()["input_ids"]).pooled.detach()
    torch.testing.assert_close(outputs, [expected, expected])
    assert fast.report.calls == {"fallback:building": 2, "optimized": 1}


def test_a_hook_of_the_optimized_model_can_call_it() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch(), strict=True)
    depth: list[None] = []

    def hook(*_: object) -> None:
        if len(depth) < 2:
            depth.append(None)
            fast(**batch(3))

    fast.register_forward_hook(hook)
    torch.testing.assert_close(fast(**batch()).pooled, model(**batch()).pooled.detach())
    assert fast.report.calls == {"optimized": 3}
