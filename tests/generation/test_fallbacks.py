"""What a stepper can't serve goes to the original: with the same cache, and counted."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.generation.models import (
    accelerated,
    assert_falls_back,
    assert_same_tokens,
    assert_served,
    decoder,
    left_padded,
    prompt,
)
from tests.generation.steppers import Faults, other_steppers, stepping, without_positions

UNSERVED: dict[str, tuple[dict[str, Any], str]] = {
    "without a cache": ({"use_cache": False}, "use_cache=False"),
    "static cache": ({"cache_implementation": "static"}, "StaticCache"),
    "hidden states": (
        {"output_hidden_states": True, "return_dict_in_generate": True},
        "output_hidden_states",
    ),
}


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("cause", UNSERVED)
def test_calls_that_a_stepper_does_not_serve(name: str, cause: str) -> None:
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    call, reason = UNSERVED[cause]
    inputs = {**left_padded(), "max_new_tokens": 6, "do_sample": False, **call}
    before = fast.report.calls
    found, expected = fast.generate(**inputs), model.generate(**inputs)
    if not isinstance(found, torch.Tensor):
        assert len(found.hidden_states) == len(expected.hidden_states)
        found, expected = found.sequences, expected.sequences
    assert torch.equal(found, expected)
    assert set(fast.report.calls - before) == {"fallback:method"}
    assert reason in fast.report.fallbacks["fallback:method"]


def test_attentions_are_the_originals() -> None:
    model = decoder("llama", attn_implementation="eager")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    call = {"max_new_tokens": 4, "output_attentions": True, "return_dict_in_generate": True}
    found, expected = (m.generate(**prompt(), **call) for m in (fast, model))
    assert torch.equal(found.sequences, expected.sequences)
    for step, of_original in zip(found.attentions, expected.attentions, strict=True):
        for layer, other in zip(step, of_original, strict=True):
            torch.testing.assert_close(layer, other)
    assert "output_attentions is" in fast.report.fallbacks["fallback:method"]


def test_a_pipeline_without_a_step_that_generates() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["jit"])
    assert_falls_back(fast, model, left_padded(), "generate is not accelerated")
    assert fast.report.generation is None


def test_weights_in_half_precision() -> None:
    model = decoder("llama").to(torch.float16)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_falls_back(fast, model, prompt(), "float16")
    assert "bfloat16" in fast.report.generation.outcome.remedy


STRICT: dict[str, tuple[str, dict[str, Any], str]] = {
    "no step": ("jit", {}, "generate is not accelerated"),
    "no cache": ("onednn", {"use_cache": False}, "use_cache=False"),
    "static cache": ("onednn", {"cache_implementation": "static"}, "StaticCache"),
}


@pytest.mark.parametrize(("backend", "call", "reason"), STRICT.values(), ids=list(STRICT))
def test_strict(backend: str, call: dict[str, Any], reason: str) -> None:
    fast: Any = cpuaccel.optimize(decoder("llama"), [backend], strict=True)
    with pytest.raises(cpuaccel.StepError, match=reason):
        fast.generate(**prompt(), max_new_tokens=3, **call)


def test_strict_serves_what_can_be_served() -> None:
    model = decoder("llama")
    assert_served(cpuaccel.optimize(model, ["onednn"], strict=True), model, left_padded())


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fast: Any = cpuaccel.optimize(decoder("llama"), ["onednn"])
    for _ in range(2):
        fast.generate(**prompt(), max_new_tokens=3, use_cache=False)
    (record,) = [r for r in caplog.records if r.name == "cpuaccel"]
    assert record.levelno == logging.WARNING
    assert "falling back to the original model" in record.getMessage()
    assert "use_cache=False" in record.getMessage()


SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("kind", "call"), [("raises", 1), ("raises", 3), ("nan", 3)])
@pytest.mark.parametrize(("name", "length"), [("llama", 13), ("gemma3", 4), ("gemma3", 13)])
def test_a_stepper_that_fails_midway(
    offer: Offer, name: str, length: int, kind: str, call: int, search: str
) -> None:
    """The first layer has the tokens of the failed call, the second one has not."""
    faults = Faults(kind)
    offer(stepping(faults.forward))
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    inputs = left_padded() if search == "greedy" and length == 13 else prompt(length)
    assert_served(fast, model, inputs, **SEARCHES[search])
    faults.countdown = call
    reason = "RuntimeError in the stepper" if kind == "raises" else "NaN"
    assert_falls_back(fast, model, inputs, reason, **SEARCHES[search])
    assert fast.report.calls["fallback:method"] == 1  # later steps are served again
    assert faults.countdown < 0


def test_logits_whose_sum_overflows(offer: Offer) -> None:
    """They are finite, and served."""
    size = torch.tensor(1.0)

    def step(model: Any, inputs: dict[str, Any]) -> object:
        output = model(**inputs)
        if size > 1:
            best = output.logits == output.logits.amax(-1, keepdim=True)
            output.logits = torch.where(best, size, -size)
        return output

    offer(stepping(step))
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    fast.prepare_generation()
    size.fill_(3e38)
    assert_served(fast, model, prompt())


def test_nan_in_the_middle_of_a_chunk(offer: Offer) -> None:
    """Assisted decoding reads the logits of all tokens of a chunk."""
    faults = Faults("nan in the first token")
    offer(stepping(faults.forward))
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    inputs = {key: tensor.repeat(1, 3) for key, tensor in prompt(5).items()}
    call = {"prompt_lookup_num_tokens": 4}
    assert_served(fast, model, inputs, **call)
    faults.countdown = 2
    assert_falls_back(fast, model, inputs, "NaN", **call)


def test_an_original_that_raises() -> None:
    """The caller gets the original's error."""
    model, fast = accelerated("llama")
    wrong = {"input_ids": torch.tensor([[3, 100_000]])}
    for each in (model, fast):
        with pytest.raises(IndexError):
            each.generate(**wrong, max_new_tokens=2)


def test_a_stepper_that_can_not_be_built(offer: Offer) -> None:
    def build(model: torch.nn.Module) -> Callable[..., object]:
        raise OSError("no such engine")

    offer(stepping(build=build))
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    assert_falls_back(fast, model, prompt(), "OSError")
    assert fast.report.generation.outcome.status is Status.FAILED
    assert_same_tokens(fast, model, prompt())


WRONG = [(name, fault) for name in ("llama", "gemma3") for fault in other_steppers()]


@pytest.mark.parametrize(("name", "fault"), [*WRONG, ("gpt2", "ignores positions")])
def test_wrong_steppers_are_refused(offer: Offer, name: str, fault: str) -> None:
    offer(stepping({**other_steppers(), "ignores positions": without_positions}[fault]))
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    assert_falls_back(fast, model, left_padded(), "not accelerated")
    outcome = fast.report.generation.outcome
    assert outcome.status is Status.FAILED
    assert outcome.reason
    assert outcome.remedy
    assert fast.report.generation.stepper is None


def test_a_larger_tolerance_accepts_it(offer: Offer) -> None:
    def nearly(model: Any, inputs: dict[str, Any]) -> object:
        output = model(**inputs)
        output.logits = output.logits * 1.001
        return output

    offer(stepping(nearly))
    model = decoder("llama")
    exact: Any = cpuaccel.optimize(model, ["stepping"])
    assert_falls_back(exact, model, prompt(), "tolerance 0.0001")
    assert_served(cpuaccel.optimize(model, ["stepping"], tolerance=0.01), model, prompt())


def test_a_generate_that_was_replaced() -> None:
    model = decoder("llama")
    model.generate = lambda *_, **__: "mine"
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert fast.generate(**prompt()) == "mine"
    assert fast.report.calls == {"fallback:method": 1}
    assert "not a method of the model's class" in fast.report.fallbacks["fallback:method"]


def test_a_step_that_serves_generate_alone(offer: Offer) -> None:
    """Its processor is too old for calls, but not for generate; nothing is wrong until a call."""

    class GenerateOnly(stepping()):  # type: ignore[misc]
        def check(self, host: cpuaccel.Host) -> cpuaccel.Verdict:
            return cpuaccel.Verdict.no("calls need another processor", "")

        def check_generation(self, host: cpuaccel.Host) -> cpuaccel.Verdict:
            return cpuaccel.Verdict.yes()

    offer(GenerateOnly)
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["stepping"], strict=True)
    assert_served(fast, model, prompt())
    with pytest.raises(cpuaccel.StepError, match="calls need another processor"):
        fast(**prompt())
    with pytest.raises(cpuaccel.StepError, match="calls need another processor"):
        cpuaccel.optimize(model, ["stepping"], strict=True, example_inputs=prompt())
    with pytest.raises(cpuaccel.StepError, match="calls need another processor"):
        cpuaccel.optimize(torch.nn.Linear(2, 2), ["stepping"], strict=True)
