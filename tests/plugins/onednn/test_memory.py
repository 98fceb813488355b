"""Weights take memory once if the original gives them up, and are restored exactly."""

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.testing import tiny_text_model
from cpuaccel.testing.outputs import assert_same_output
from tests.required import BF16, requires

STEP = cpuaccel.Step("onednn", measure=False)
X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class Linears(torch.nn.Module):
    """Two linears, and parameters that need another variant or none."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)

    def forward(
        self, x: torch.Tensor, added: torch.Tensor | None = None, names: list[str] | None = None
    ) -> torch.Tensor:
        hidden: torch.Tensor = self.second(self.first(x).relu())
        return hidden if added is None else hidden + added


def without_original(dtype: str | None = None) -> tuple[Linears, cpuaccel.OptimizedModel]:
    model = Linears().eval()
    fast = cpuaccel.optimize(model, [STEP], example_inputs=X, keep_original=False, dtype=dtype)
    return model, fast


def empty(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.numel() == 0]


def test_packed_weights_are_given_up_and_no_others() -> None:
    original = tiny_text_model("BertForMaskedLM")
    ids = torch.arange(24).reshape(2, 12)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected = original(**inputs)
    model = tiny_text_model("BertForMaskedLM")
    fast = cpuaccel.optimize(model, [STEP], example_inputs=inputs, keep_original=False)
    assert_same_output(fast(**inputs), expected, inputs, 1e-4)
    assert fast.report.variants[0].speed is None
    linears = {n for n, module in original.named_modules() if isinstance(module, torch.nn.Linear)}
    # The decoder shares its weight with the embedding, which the graph reads unpacked.
    given_up = {f"{name}.weight" for name in linears - {"cls.predictions.decoder"}}
    assert {*empty(model)} == given_up
    assert fast.config.num_hidden_layers == 2  # restores nothing
    assert {*empty(model)} == given_up


class Convolutions(torch.nn.Module):
    """Convolutions over one axis and two, in groups, and one before a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.two_axes = torch.nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.normed = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8))
        self.one_axis = torch.nn.Conv1d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.one_axis(self.normed(self.two_axes(x).relu()).mean(2))
        return answer


def test_convolutions_give_up_weights_that_no_batch_norm_is_folded_into() -> None:
    torch.manual_seed(0)
    model, x = Convolutions().eval(), torch.randn(2, 4, 12, 12)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = model(x)
    fast = cpuaccel.optimize(model, [STEP], example_inputs=x, keep_original=False)
    assert_same_output(fast(x), expected, {}, 1e-4)
    assert set(empty(model)) == {"two_axes.weight", "one_axis.weight"}
    assert_same_output(fast.original(x), expected, {}, 0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_model_without_weights_cannot_be_called() -> None:
    model, _ = without_original()
    with pytest.raises(cpuaccel.ModelError, match="weights of this Linears were moved"):
        model(X)


@pytest.mark.parametrize(
    "need",
    [
        lambda fast: fast.original,
        lambda fast: fast.state_dict(),
        lambda fast: fast.train(),
        lambda fast: fast.to("cpu"),
        lambda fast: copy.deepcopy(fast),
        lambda fast: pickle.dumps(fast),
        lambda fast: fast(X, names=[]),  # which no variant accepts
        lambda fast: fast(X, X),  # which needs a variant of its own
    ],
)
def test_what_needs_the_weights_restores_them(
    need: Callable[[Any], object], caplog: pytest.LogCaptureFixture
) -> None:
    before = Linears().state_dict()
    model, fast = without_original()
    assert {*empty(model)} == {"first.weight", "second.weight"}
    with caplog.at_level(logging.WARNING):
        need(fast)
    assert any("of original weights" in record.getMessage() for record in caplog.records)
    fast.original.eval()
    assert not empty(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    model(X)


def test_a_copy_gives_its_own_weights_up() -> None:
    _, fast = without_original()
    twin = copy.deepcopy(fast)
    expected = fast.original(X)
    assert_same_output(twin(X), expected, {}, 1e-4)
    assert_same_output(fast(X), expected, {}, 1e-4)
    assert empty(twin._modules["original"])


@requires(BF16)
def test_a_model_cast_to_bfloat16_gives_up_the_cast_copy() -> None:
    model, fast = without_original("bfloat16")
    assert not empty(model)  # bfloat16 can't restore its weights
    assert_same_output(fast(X), model(X), {}, 5e-2)


def test_a_warning_says_that_no_step_released_weights(caplog: pytest.LogCaptureFixture) -> None:
    model = Linears().eval()
    step = cpuaccel.Step("onednn", prepack=False)
    with caplog.at_level(logging.WARNING):
        cpuaccel.optimize(model, [step], example_inputs=X, keep_original=False)
    assert not empty(model)
    assert any("no step" in record.getMessage() for record in caplog.records)
