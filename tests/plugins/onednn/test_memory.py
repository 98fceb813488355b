"""Weights are held once where the original gives them up, and come back exactly."""

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

HERE = cpuaccel.host().meets(("torch>=2.6",))
pytestmark = pytest.mark.skipif(not HERE, reason=str(HERE))

STEP = cpuaccel.Step("onednn", measure=False)
IDS = torch.arange(24).reshape(2, 12)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def given_up(dtype: str | None = None) -> tuple[torch.nn.Module, cpuaccel.OptimizedModel]:
    model = tiny_text_model("BertForMaskedLM")
    fast = cpuaccel.optimize(model, [STEP], example_inputs=BATCH, keep_original=False, dtype=dtype)
    return model, fast


def empty(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.numel() == 0]


def test_packed_weights_are_given_up_and_no_others() -> None:
    kept = tiny_text_model("BertForMaskedLM")
    expected = kept(**BATCH)
    model, fast = given_up()
    assert_same_output(fast(**BATCH), expected, BATCH, 1e-4)
    assert fast.report.variants[0].speed is None
    linears = {n for n, module in kept.named_modules() if isinstance(module, torch.nn.Linear)}
    # The decoder's is the embedding's, too, which the graph still reads as it is.
    assert {*empty(model)} == {f"{n}.weight" for n in linears - {"cls.predictions.decoder"}}


class Convolutions(torch.nn.Module):
    """Over one axis and over two, in groups, and with a batch norm after one."""

    def __init__(self) -> None:
        super().__init__()
        self.two_axes = torch.nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.normed = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8))
        self.one_axis = torch.nn.Conv1d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.one_axis(self.normed(self.two_axes(x).relu()).mean(2))
        return answer


def test_convolutions_are_given_up_but_for_those_that_a_batch_norm_is_folded_into() -> None:
    torch.manual_seed(0)
    model, x = Convolutions().eval(), torch.randn(2, 4, 12, 12)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = model(x)
    fast = cpuaccel.optimize(model, [STEP], example_inputs=x, keep_original=False)
    assert_same_output(fast(x), expected, {}, 1e-4)
    assert set(empty(model)) == {"two_axes.weight", "one_axis.weight"}
    assert_same_output(fast.original(x), expected, {}, 0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_calling_the_model_that_gave_its_weights_up_says_so() -> None:
    model, _ = given_up()
    with pytest.raises(
        cpuaccel.ModelError,
        match="weights of this BertForMaskedLM were moved into the optimized model",
    ):
        model(**BATCH)


@pytest.mark.parametrize(
    "need",
    [
        lambda fast: fast.original,
        lambda fast: fast.state_dict(),
        lambda fast: fast.train(),
        lambda fast: fast.to("cpu"),
        lambda fast: copy.deepcopy(fast),
        lambda fast: pickle.dumps(fast),
        lambda fast: fast(IDS, output_attentions=[]),  # which no variant takes
        lambda fast: fast(IDS),  # which needs a variant of its own
    ],
)
def test_what_needs_the_weights_brings_them_back(
    need: Callable[[Any], object], caplog: pytest.LogCaptureFixture
) -> None:
    before = tiny_text_model("BertForMaskedLM").state_dict()
    model, fast = given_up()
    with caplog.at_level(logging.WARNING):
        need(fast)
    assert any("of original weights" in record.getMessage() for record in caplog.records)
    fast.original.eval()
    assert not empty(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    model(**BATCH)


def test_a_copy_answers_and_gives_its_own_weights_up() -> None:
    _, fast = given_up()
    twin = copy.deepcopy(fast)
    expected = fast.original(**BATCH)
    assert_same_output(twin(**BATCH), expected, BATCH, 1e-4)
    assert_same_output(fast(**BATCH), expected, BATCH, 1e-4)
    assert empty(twin._modules["original"])


def test_looking_at_the_configuration_brings_nothing_back() -> None:
    model, fast = given_up()
    assert fast.config.num_hidden_layers == 2
    assert empty(model)


@requires(BF16)
def test_a_model_cast_to_bfloat16_gives_up_the_cast_copy() -> None:
    model, fast = given_up("bfloat16")
    assert not empty(model)  # it holds what bfloat16 can't give back
    assert_same_output(fast(**BATCH), model(**BATCH), BATCH, 5e-2)


def test_where_nothing_takes_the_weights_over_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_text_model("BertForMaskedLM")
    step = cpuaccel.Step("onednn", prepack=False)
    with caplog.at_level(logging.WARNING):
        cpuaccel.optimize(model, [step], example_inputs=BATCH, keep_original=False)
    assert not empty(model)
    assert any("no step took weights over" in record.getMessage() for record in caplog.records)
