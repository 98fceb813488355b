"""Tracing by position, the only way before torch 2.0, on batches in any order and with gaps."""

import logging
from collections.abc import Callable

import pytest
import torch

import cpuaccel
from tests.models import Inputs, batch, encoder, right
from tests.stacks.cases import PADDED_LEFT, PADDED_RIGHT, TASKS, assert_cases_match

Order = Callable[[list[str]], list[str]]


def labelled(name: str, size: int = 2, length: int = 24) -> Inputs:
    """Inputs with labels; BERT's token_type_ids, which come between, are left out."""
    inputs = batch(name, size, length, right)
    if name.endswith("text"):
        return {**inputs, "labels": torch.arange(size) % 2}
    if name.endswith("token"):
        return {**inputs, "labels": inputs["attention_mask"] * (inputs["input_ids"] % 2)}
    return {**inputs, "start_positions": torch.arange(size), "end_positions": torch.arange(size)}


def original(model: torch.nn.Module, inputs: Inputs) -> object:
    with torch.no_grad():
        return model(**inputs)


@pytest.mark.parametrize("name", TASKS)
def test_the_usual_batch(name: str) -> None:
    model = encoder(name)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch(name, 2, 24, right), strict=True)
    assert fast.report.outcomes[0].evidence["inputs_bound"] == "by position"
    assert_cases_match(fast, model, name, PADDED_RIGHT + PADDED_LEFT)
    assert set(fast.report.calls) == {"optimized"}, fast.report


@pytest.mark.parametrize(
    "order",
    [lambda names: names, lambda names: names[::-1], lambda names: [names[-1], *names[:-1]]],
    ids=["labels last", "reversed", "labels first"],
)
@pytest.mark.parametrize("name", TASKS)
def test_a_batch_with_labels_in_any_order(name: str, order: Order) -> None:
    model = encoder(name)

    def ordered(inputs: Inputs) -> Inputs:
        return {key: inputs[key] for key in order(list(inputs))}

    fast = cpuaccel.optimize(model, ["jit"], example_inputs=ordered(labelled(name)), strict=True)
    for size, length in ((1, 24), (5, 31), (3, 9)):
        inputs = ordered(labelled(name, size, length))
        expected, found = original(model, inputs), fast(**inputs)
        assert type(found) is type(expected)
        assert isinstance(expected, dict)
        assert list(found) == list(expected)
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, msg=key)
    assert set(fast.report.calls) == {"optimized"}, fast.report


def test_torch_by_itself_fails_on_the_same_batch() -> None:
    """Why the batch is bound to forward's own order first."""
    model = encoder("bert-text", torchscript=True)
    inputs = labelled("bert-text", size=1)  # of one row, labels pass for token_type_ids
    script = torch.jit.trace(model, tuple(inputs.values()), check_trace=False)
    with pytest.raises(RuntimeError, match="missing value for argument 'token_type_ids'"):
        script(**inputs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda inputs: {**inputs, "token_types": inputs["input_ids"]},
            "input 'token_types' is not a parameter of forward, which takes input_ids, ",
        ),
        (
            lambda inputs: {"words": inputs["input_ids"]},
            "input 'words' is not a parameter of forward, which takes input_ids, ",
        ),
    ],
)
def test_an_example_that_cannot_be_bound_names_the_parameter(
    change: Callable[[Inputs], Inputs], problem: str
) -> None:
    model = encoder("bert-qa")
    with pytest.raises(cpuaccel.SignatureError) as caught:
        cpuaccel.optimize(model, ["jit"], example_inputs=change(batch("bert-qa", 2, 8, right)))
    assert str(caught.value).startswith(problem)


class Scaled(torch.nn.Module):
    """Requires both of its inputs."""

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale


def test_an_example_that_lacks_a_required_input_names_it() -> None:
    with pytest.raises(cpuaccel.SignatureError) as caught:
        cpuaccel.optimize(Scaled(), ["jit"], example_inputs={"x": torch.ones(2)})
    assert str(caught.value) == (
        "forward requires 'scale', which is missing from the inputs: x. Add it"
    )


@pytest.mark.parametrize("arguments", [{"x": torch.ones(2)}, {"x": torch.ones(2), "y": 1}])
def test_a_first_call_that_cannot_be_bound_raises_what_the_original_raises(
    arguments: dict[str, object],
) -> None:
    model = Scaled()
    with pytest.raises(TypeError) as expected:
        model(**arguments)
    fast = cpuaccel.optimize(model, ["jit"])
    with pytest.raises(TypeError) as raised:
        fast(**arguments)
    assert str(raised.value) == str(expected.value)
    assert torch.equal(fast(torch.ones(2), torch.ones(2)), torch.ones(2))
    assert fast.report.applied == ("jit",)


class Settings:
    """An input that is neither a tensor nor a plain value."""

    factor = 3


class Configured(torch.nn.Module):
    def forward(self, x: torch.Tensor, settings: Settings) -> torch.Tensor:
        return x * settings.factor


def test_a_fallback_warning_names_the_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = cpuaccel.optimize(Configured(), ["jit"])
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        for _ in range(2):
            assert torch.equal(fast(torch.ones(2), Settings()), torch.full((2,), 3.0))
    (message,) = caplog.messages
    assert message.startswith("falling back to the original model: ")
    assert "'settings'" in message
    assert fast.report.calls == {"fallback:input_type": 2}
