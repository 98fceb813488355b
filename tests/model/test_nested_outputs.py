"""Optimized models inside other models and themselves, and traced, exported or compiled."""

from collections.abc import Callable

import pytest
import torch

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Faithful, Opaque, batch, encoder


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


@pytest.mark.parametrize("inner", ["faithful", "jit", "onednn"])
@pytest.mark.parametrize("outer", ["faithful", "opaque", "jit", "onednn"])
def test_an_optimized_submodule_of_an_optimized_model(inner: str, outer: str) -> None:
    need("onednn") if "onednn" in (inner, outer) else None
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


def test_an_optimized_model_optimized_again() -> None:
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
    need("onednn")
    return torch.export.export(fast, (), batch(), strict=False).module()


def compiled(fast: torch.nn.Module) -> Callable[..., object]:
    need("inductor")
    found: Callable[..., object] = torch.compile(fast, backend="aot_eager")
    return found


@pytest.mark.filterwarnings("ignore")  # torch warns of its own deprecations
@pytest.mark.parametrize("capture", [traced, exported, compiled])
def test_a_captured_call_runs_the_original(
    capture: Callable[[torch.nn.Module], Callable[..., object]],
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch(), strict=True)
    found = capture(fast)(**batch())
    torch.testing.assert_close(found[1].detach(), model(**batch()).pooled.detach())  # type: ignore[index]
    assert len(fast.report.variants) == 1


def test_a_hook_that_calls_the_model_does_not_build_it_again() -> None:
    model = encoder()
    inside: list[torch.Tensor] = []
    under_way: list[None] = []

    def hook(*_: object) -> None:
        if len(under_way) < 2:
            under_way.append(None)
            inside.append(fast(input_ids=batch()["input_ids"]).pooled)

    model.feed.register_forward_hook(hook)
    fast = cpuaccel.optimize(model, ["faithful"])
    output = fast(**batch()).pooled
    torch.testing.assert_close(output, model(**batch()).pooled.detach())
    expected = model(input_ids=batch()["input_ids"]).pooled.detach()
    assert len(inside) == 2
    for found in inside:
        torch.testing.assert_close(found, expected)
    assert fast.report.calls == {"fallback:building": 2, "optimized": 1}


def test_a_hook_of_the_optimized_model_may_call_it() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch(), strict=True)
    depth: list[int] = []

    def hook(*_: object) -> None:
        if len(depth) < 2:
            depth.append(0)
            fast(**batch(3))

    fast.register_forward_hook(hook)
    fast(**batch())
    assert fast.report.calls == {"optimized": 3}


def need(engine: str) -> None:
    backend = cpuaccel.backends()[engine]
    verdict = backend(backend.Options()).check(cpuaccel.host())
    if not verdict:
        pytest.skip(str(verdict))
