"""An engine that fails in a call: which output is returned, what is counted and logged."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import cpuaccel
from cpuaccel.building.variant import MAX_FAULTS
from cpuaccel.testing import MaskedEncoder
from tests.conftest import Offer
from tests.fake_backends import (
    Call,
    Faithful,
    Fake,
    NanLater,
    Opaque,
    RaisingLater,
    batch,
    encoded,
    encoder,
    same,
)

BAD = batch(first=49)


class _Wrong(Fake):
    """Returns a compiled callable that is wrong on token 49."""

    gives = cpuaccel.Form.COMPILED
    wrong: Callable[[tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]

    def apply(self, model: torch.nn.Module, context: cpuaccel.Context) -> cpuaccel.Applied:
        signature = context.signature
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)

        def call(**inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            output: tuple[torch.Tensor, ...] = flat(**inputs)
            return type(self).wrong(output) if bool((inputs["input_ids"] == 49).any()) else output

        return cpuaccel.Applied(call, evidence={"wrapped": 1})


class Transposing(_Wrong):
    name = "transposing"
    wrong = staticmethod(lambda output: (output[0].transpose(0, 1), output[1]))


class Shortening(_Wrong):
    name = "shortening"
    wrong = staticmethod(lambda output: (output[0], output[1][:1]))


class Narrowing(_Wrong):
    name = "narrowing"
    wrong = staticmethod(lambda output: (output[0], output[1][:, :8]))


class Flattening(_Wrong):
    name = "flattening"
    wrong = staticmethod(lambda output: (output[0].flatten(), output[1]))


class Halving(_Wrong):
    name = "halving"
    wrong = staticmethod(lambda output: (output[0].bfloat16(), output[1]))


class Dropping(_Wrong):
    name = "dropping"
    wrong = staticmethod(lambda output: output[:1])


class Adding(_Wrong):
    name = "adding"
    wrong = staticmethod(lambda output: (*output, output[0]))


class Listing(Fake):
    name = "listing"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        output = encoded(model(**inputs))
        ids = inputs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        return list(output) if bool((ids == 49).any()) else output


FAULTS = [
    pytest.param(backend, key, keyword, id=backend.name)
    for backend, key, keyword in (
        (RaisingLater, "fallback:error", "RuntimeError"),
        (NanLater, "fallback:nan", "NaN"),
        (Transposing, "fallback:output_form", "shape [12, 2, 16]"),
        (Shortening, "fallback:output_form", "shape [1, 16]"),
        (Narrowing, "fallback:output_form", "shape [2, 8]"),
        (Flattening, "fallback:output_form", "shape [384]"),
        (Halving, "fallback:output_form", "torch.bfloat16 instead of torch.float32"),
        (Listing, "fallback:output_form", "a list instead of a Encoded"),
        (Dropping, "fallback:error", "BackendError"),
        (Adding, "fallback:error", "BackendError"),
    )
]


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(
        *(Opaque, RaisingLater, NanLater, Listing, Dropping, Adding),
        *(Transposing, Shortening, Narrowing, Flattening, Halving),
    )


@pytest.mark.parametrize(("backend", "key", "keyword"), FAULTS)
def test_a_fault_falls_back_to_the_original_and_is_counted(
    backend: type[Fake], key: str, keyword: str
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend.name], example_inputs=batch())
    assert same(fast(**BAD), model(**BAD))
    assert same(fast(**batch()), model(**batch()))
    assert fast.report.calls == {key: 1, "optimized": 1}
    assert keyword in fast.report.fallbacks[key]


@pytest.mark.parametrize(("backend", "key", "keyword"), FAULTS)
def test_a_fault_raises_with_strict(backend: type[Fake], key: str, keyword: str) -> None:
    fast = cpuaccel.optimize(encoder(), [backend.name], example_inputs=batch(), strict=True)
    with pytest.raises(cpuaccel.StepError) as caught:
        fast(**BAD)
    assert keyword in str(caught.value)
    assert fast.report.calls == {}


def test_consecutive_faults_switch_the_variant_off_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["raising_later"], example_inputs=batch())
    for _ in range(MAX_FAULTS + 2):
        assert same(fast(**BAD), model(**BAD))
    assert same(fast(**batch()), model(**batch()))
    assert fast.report.calls == {"fallback:error": MAX_FAULTS, "fallback:switched_off": 3}
    reason = fast.report.fallbacks["fallback:switched_off"]
    assert reason.startswith(f"switched off after {MAX_FAULTS} consecutive faults")
    assert "RuntimeError" in reason
    warnings = [r.getMessage() for r in caplog.records if r.getMessage().startswith("the variant")]
    assert warnings == [
        "the variant for input_ids: int64[2, 12], attention_mask: int64[2, 12] is "
        f"{reason}. The original serves these calls from now on; load_state_dict() or another "
        "optimize() rebuilds the variant"
    ]


def switched_off() -> cpuaccel.OptimizedModel:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    for _ in range(MAX_FAULTS):
        fast(**BAD)
    assert fast.variants[0].off
    return fast


def test_a_success_between_faults_keeps_the_variant_on() -> None:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    for _ in range(3 * MAX_FAULTS):
        fast(**BAD)
        fast(**batch())
    assert fast.report.calls == {"fallback:error": 3 * MAX_FAULTS, "optimized": 3 * MAX_FAULTS}


def test_switching_off_one_variant_leaves_the_others_on() -> None:
    fast = switched_off()
    fast(input_ids=batch()["input_ids"])
    assert fast.report.calls["optimized"] == 1


def test_loading_weights_switches_the_variant_on_again() -> None:
    fast = switched_off()
    fast.load_state_dict(MaskedEncoder.seeded(1).state_dict())
    fast(**batch())
    assert fast.report.calls["optimized"] == 1


class Divides(torch.nn.Module):
    """Returns infinity where ``by`` is 0."""

    def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return x / by


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_infinity_that_the_original_returns_too_is_not_a_fault(strict: bool) -> None:
    fast = cpuaccel.optimize(
        Divides(), ["jit"], example_inputs=(torch.ones(2), torch.ones(2)), strict=strict
    )
    for _ in range(2 * MAX_FAULTS):
        assert fast(torch.ones(2), torch.zeros(2)).isinf().all()
    assert fast(torch.ones(2), torch.ones(2)).tolist() == [1, 1]
    assert fast.report.calls == {
        "fallback:nan_in_original": 2 * MAX_FAULTS,
        "optimized": 1,
    }


def test_an_error_that_the_original_raises_too_is_raised_and_is_not_a_fault() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch(), strict=True)
    out_of_vocabulary = batch(first=1000)  # of 50
    for _ in range(2 * MAX_FAULTS):
        with pytest.raises(IndexError, match="index out of range in self"):
            fast(**out_of_vocabulary)
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


class Buckets(torch.nn.Module):
    """Its output is as long as the input, up to 16: a rule that probes do not find."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :16] * 2


def test_an_unexpected_output_shape_is_compared_with_the_original_once(offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(Buckets(), ["faithful"], example_inputs=torch.ones(2, 12), strict=True)
    for _ in range(3):
        assert fast(torch.ones(3, 20)).shape == (3, 16)
    assert fast.report.calls == {"fallback:new_output_shape": 1, "optimized": 2}


class WritesInput(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1).neg()


class FailingAfterWriting(Fake):
    name = "failing_after_writing"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        output = model(**inputs)
        assert isinstance(output, torch.Tensor)
        if output[0, 0] == -1:
            raise RuntimeError("engine failed")
        return output[:, 1:] if output[0, 0] == -2 else output


@pytest.mark.parametrize("first", [0.0, 1.0], ids=["error", "shape"])
def test_the_original_gets_the_inputs_as_they_were_before_a_fault(
    first: float, offer: Offer
) -> None:
    offer(FailingAfterWriting)
    model = WritesInput().eval()
    fast = cpuaccel.optimize(
        model, ["failing_after_writing"], example_inputs=torch.full((2, 3), 2.0)
    )
    ours, theirs = torch.full((2, 3), first), torch.full((2, 3), first)
    assert torch.equal(fast(ours), model(theirs))
    assert torch.equal(ours, theirs)
    assert fast.report.calls["optimized"] == 0
    assert fast.report.calls.total() == 1


def test_an_interrupted_call_is_not_a_fault(offer: Offer, caplog: pytest.LogCaptureFixture) -> None:
    class Interrupted(_Wrong):
        name = "interrupted"

        @staticmethod
        def wrong(output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            raise KeyboardInterrupt

    offer(Interrupted)
    fast = cpuaccel.optimize(encoder(), ["interrupted"], example_inputs=batch())
    with pytest.raises(KeyboardInterrupt):
        fast(**BAD)
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}
    assert caplog.records == []


def test_faults_in_concurrent_threads_are_all_counted() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["raising_later"], example_inputs=batch())
    expected, threads, rounds = model(**BAD), 4, 25

    def work() -> bool:
        return all(same(fast(**BAD), expected) for _ in range(rounds))

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work) for _ in range(threads)]
    assert all(future.result() for future in futures)
    assert fast.report.calls.total() == threads * rounds
    assert "optimized" not in fast.report.calls
    assert fast.variants[0].off


def test_the_engines_error_is_in_the_debug_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    with caplog.at_level(logging.DEBUG, logger="cpuaccel"):
        fast(**BAD)
    assert "illegal instruction, nearly" in caplog.text
