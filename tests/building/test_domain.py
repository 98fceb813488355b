"""A variant serves the calls that its proof covers, and is audited."""

import logging
from collections.abc import Mapping

import pytest
import torch
from torch.nn import functional

import cpuaccel
from cpuaccel.report import CallKey, Status
from tests.building.models import Image
from tests.conftest import Offer
from tests.fake_backends import Fake, Opaque
from tests.required import requires

symbolic = requires("torch>=2.1")


def matches(fast: torch.nn.Module, model: torch.nn.Module, *inputs: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(fast(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["jit", "opaque"])
def test_other_sizes_get_the_right_output(offer: Offer, backend: str) -> None:
    offer(Opaque)
    model = Image().eval()
    fast = cpuaccel.optimize(model, [backend], example_inputs=torch.randn(2, 3, 16, 16))
    for size in [(16, 16), (16, 24), (12, 16), (24, 24), (32, 40), (18, 9), (1, 1)]:
        assert matches(fast, model, torch.randn(3, 3, *size)), size
    assert fast.report.calls == {"optimized": 7}


@symbolic
def test_sizes_on_the_same_path_share_a_variant(offer: Offer) -> None:
    offer(Opaque)  # calls the model itself, so that each size is served
    model = Image().eval()
    fast = cpuaccel.optimize(model, ["opaque"], example_inputs=torch.randn(2, 3, 16, 16))
    for size in [(16, 24), (12, 16), (20, 40)]:
        assert matches(fast, model, torch.randn(5, 3, *size))
    assert len(fast.report.variants) == 1
    assert matches(fast, model, torch.randn(2, 3, 24, 16))
    assert len(fast.report.variants) == 2
    assert "pixels: float32[batch, 3, pixels[2], pixels[3]]" in fast.report.variants[0].domain


@symbolic
@pytest.mark.parametrize("columns", [1, 4])
def test_a_size_of_one_proves_nothing_about_others(columns: int) -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[2] > 4 else x + 1

    model = Branching()
    example = torch.ones(2, 3, columns)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=example, audit=False)
    for size in [(2, 3, 1), (2, 3, 2), (2, 3, 5), (1, 3, 9), (3, 1, 3)]:
        assert matches(fast, model, torch.randn(size)), size


def test_code_that_reads_values_is_not_captured(caplog: pytest.LogCaptureFixture) -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if bool((x > 0).any()) else x - 1

    model = Branching()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 3))
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.SKIPPED
    assert "test_domain.py" in outcome.reason
    assert matches(fast, model, -torch.ones(2, 3))
    insisting = cpuaccel.optimize(
        model, ["jit"], example_inputs=torch.ones(2, 3), freeze_values=True
    )
    assert insisting.report.applied == ("jit",)


def test_a_random_model_is_named_as_one() -> None:
    class Random(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(x, 0.5, training=True)

    model, x = Random().eval(), torch.ones(20)
    fast = cpuaccel.optimize(model, ["jit"])
    torch.manual_seed(3)
    output = fast(x)
    torch.manual_seed(3)
    assert torch.equal(output, model(x))
    assert "random numbers" in fast.report.outcomes[0].reason


def test_a_model_with_state_keeps_its_own() -> None:
    class Streaming(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))
            self.last = torch.zeros(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert isinstance(self.seen, torch.Tensor)
            self.seen.add_(x.mean(0))
            self.last = x.mean(0) + self.last / 2
            return self.seen + self.last

    model, other = Streaming().eval(), Streaming().eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 3))
    for _ in range(3):
        x = torch.randn(2, 3)
        assert torch.equal(fast(x), other(x))
    assert torch.equal(model.last, other.last)
    assert "state" in fast.report.outcomes[0].reason


def test_a_switched_flag_is_named() -> None:
    class Switching(torch.nn.Module):
        long = True

        def __init__(self) -> None:
            super().__init__()
            self.mode = "long"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[1] < 6:
                self.mode = "short"
            return x * len(self.mode)

    model, other = Switching().eval(), Switching().eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 8))
    for length in (8, 5, 8, 9):
        assert torch.equal(fast(torch.ones(2, length)), other(torch.ones(2, length)))


def test_a_model_that_writes_to_its_input_changes_the_callers_as_before() -> None:
    class Writing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2).sum(1)

    model, example = Writing(), torch.ones(2, 3)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=example)
    assert torch.equal(example, torch.ones(2, 3))
    ours, theirs = torch.randn(4, 3).repeat(2, 1, 1)
    assert torch.equal(fast(ours), model(theirs))
    assert torch.equal(ours, theirs)


class Overwriting(Fake):
    """Uses its input as memory, which the original does not."""

    name = "overwriting"

    def change(self, model: torch.nn.Module, inputs: dict[str, object]) -> object:  # type: ignore[override]
        output = model(**inputs)
        for value in inputs.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
        return output


def test_an_engine_that_writes_to_its_inputs_gets_copies(offer: Offer) -> None:
    offer(Overwriting)
    model = torch.nn.Linear(3, 2)
    fast = cpuaccel.optimize(model, ["overwriting"], example_inputs=torch.ones(2, 3))
    x = torch.randn(2, 3)
    kept = x.clone()
    assert matches(fast, model, x)
    assert torch.equal(x, kept)


def test_building_does_not_draw_from_the_callers_generator() -> None:
    class Drawing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0 * torch.rand(1)

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    cpuaccel.optimize(Drawing(), ["jit"], example_inputs=torch.ones(2))
    assert torch.equal(torch.rand(3), expected)


def test_inputs_without_elements_go_to_the_original() -> None:
    model = torch.nn.Linear(3, 2)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 3), strict=True)
    assert fast(torch.ones(0, 3)).shape == (0, 2)
    assert fast.report.calls == {str(CallKey.EMPTY): 1}


class WrongLater(Fake):
    """Wrong for rows that begin with a large number, which no probe does."""

    name = "wrong_later"

    def change(self, model: torch.nn.Module, inputs: Mapping[str, object]) -> object:  # type: ignore[override]
        output = model(**inputs)
        (x,) = inputs.values()
        assert isinstance(x, torch.Tensor)
        return output * 2 if float(x[0, 0]) > 100 else output


def test_an_audit_of_a_new_size_class_switches_a_wrong_variant_off(
    offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    offer(WrongLater)
    model = torch.nn.Linear(3, 2)
    fast = cpuaccel.optimize(model, ["wrong_later"], example_inputs=torch.ones(2, 3))
    large = torch.full((64, 3), 200.0)
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        assert matches(fast, model, large)
        assert matches(fast, model, large)
    assert fast.report.calls == {"fallback:audit": 1, "fallback:switched_off": 1}
    assert fast.report.audited == 1
    assert "wrong output" in caplog.text


def test_without_an_audit_nothing_is_compared(offer: Offer) -> None:
    offer(WrongLater)
    fast = cpuaccel.optimize(
        torch.nn.Linear(3, 2), ["wrong_later"], example_inputs=torch.ones(2, 3), audit=False
    )
    fast(torch.full((64, 3), 200.0))
    assert fast.report.audited == 0
    assert fast.report.calls == {"optimized": 1}


def test_a_share_of_the_time_is_audited() -> None:
    fast = cpuaccel.optimize(
        torch.nn.Linear(3, 2), ["jit"], example_inputs=torch.ones(2, 3), audit=0.5
    )
    for _ in range(50):
        fast(torch.ones(2, 3))
    assert 0 < fast.report.audited <= 50


@pytest.mark.parametrize("audit", [1.5, -0.1])
def test_a_share_must_be_below_one(audit: float) -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="audit must be"):
        cpuaccel.optimize(torch.nn.Linear(3, 2), ["jit"], audit=audit)
