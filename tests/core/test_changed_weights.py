"""After the weights of an optimized model changed, the next call uses the new ones."""

from collections.abc import Callable

import pytest
import torch

import cpuaccel
from cpuaccel.model.weights import WatchedWeights
from cpuaccel.testing import MaskedEncoder
from tests.conftest import Offer
from tests.fake_backends import Copying, Faithful, batch, encoder

OTHER = MaskedEncoder.seeded(1)


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Copying, Faithful)


def train_step(model: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(**batch()).pooled.pow(2).sum().backward()
    optimizer.step()


def scale_in_place(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)


def copy_other_weights(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), OTHER.parameters()):
            parameter.copy_(other)


def assign_data(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.5


def replace_parameter(model: torch.nn.Module) -> None:
    model.norm.weight = torch.nn.Parameter(torch.full((16,), 0.5))  # type: ignore[union-attr, assignment]


def replace_module(model: torch.nn.Module) -> None:
    model.feed = torch.nn.Identity()


CHANGES: dict[str, Callable[[torch.nn.Module], object]] = {
    "optimizer step": train_step,
    "in place": scale_in_place,
    "copy_": copy_other_weights,
    "load_state_dict": lambda m: m.load_state_dict(OTHER.state_dict()),
    "data assigned": assign_data,
    "double": lambda m: m.double(),
    "a parameter replaced": replace_parameter,
    "a module replaced": replace_module,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("backend", ["faithful", "copying", "jit"])
def test_a_changed_weight_is_used_by_the_next_call(
    backend: str, change: Callable[[torch.nn.Module], object]
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch(), strict=True)
    before = fast(**batch()).pooled
    change(model)
    after = fast(**batch()).pooled
    assert after.dtype is not before.dtype or not torch.allclose(before, after)
    torch.testing.assert_close(after, model(**batch()).pooled.detach())
    fast(**batch())
    assert len(fast.variants) == 1
    assert fast.report.calls == {"optimized": 3}


def test_the_fallback_uses_changed_buffers() -> None:
    model = torch.nn.BatchNorm1d(4).eval()
    fast = cpuaccel.optimize(model, [], dtype="float32")
    fast(torch.ones(2, 4))
    model.running_mean = torch.ones(4)
    torch.testing.assert_close(fast(torch.ones(2, 4)), torch.zeros(2, 4))
    assert fast.report.calls == {"fallback:not_applied": 2}


def test_changes_through_data_are_used_after_load_state_dict() -> None:
    """torch does not count them. docs/faults.md says so; mend it there when torch does."""
    model = encoder()
    fast = cpuaccel.optimize(model, ["copying"], example_inputs=batch(), strict=True)
    before = fast(**batch()).pooled
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    assert torch.equal(fast(**batch()).pooled, before)
    fast.load_state_dict(model.state_dict())
    torch.testing.assert_close(fast(**batch()).pooled, model(**batch()).pooled.detach())


class Counts(torch.nn.Module):
    """Writes its own buffer in each call, like caches and running statistics."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        output: torch.Tensor = self.linear(x)
        return output


def test_a_buffer_that_the_model_writes_itself_does_not_rebuild() -> None:
    model = Counts().eval()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=torch.ones(1, 2), strict=True)
    for _ in range(3):
        fast(torch.ones(1, 2))
    assert len(fast.report.variants) == 1
    scale_in_place(model)
    torch.testing.assert_close(fast(torch.ones(1, 2)), model(torch.ones(1, 2)).detach())
    assert len(fast.report.variants) == 2


def test_steps_that_work_in_place_do_not_rebuild() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], inplace=True, example_inputs=batch())
    fast(**batch())
    fast(input_ids=batch()["input_ids"])
    assert len(fast.report.variants) == 2
    scale_in_place(model)
    torch.testing.assert_close(fast(**batch()).pooled, model(**batch()).pooled.detach())


def test_replaced_data_is_detected_in_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = torch.nn.Linear(2, 2)
    watched = WatchedWeights(model)
    assert not watched.changed()
    model.weight.data = torch.zeros(2, 2)
    assert watched.changed()


def test_a_model_moved_off_the_cpu_falls_back_to_the_original(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch())
    model.to("meta")
    output = fast(**{name: tensor.to("meta") for name, tensor in batch().items()})
    assert output.pooled.device.type == "meta"
    assert fast.report.calls == {"fallback:device": 1}
    assert "meta" in fast.report.fallbacks["fallback:device"]
    assert len(caplog.records) == 1
