"""An engine that fails while it is called: what answers, what is counted, when it is given up."""

import logging
import re
import threading
from collections.abc import Callable

import pytest
import torch

import cpuaccel
from cpuaccel.building.variant import MAX_FAULTS
from cpuaccel.testing import Encoded, MaskedEncoder
from tests.conftest import Offer
from tests.fake_backends import Call, Fake, NanLater, Opaque, RaisingLater, batch, encoded, encoder

BAD = batch(first=49)


class _Wrong(Fake):
    """Gives a compiled callable that is right until it sees token 49."""

    gives = cpuaccel.Form.COMPILED
    wrong: Callable[[tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]

    def apply(self, model: torch.nn.Module, context: cpuaccel.Context) -> cpuaccel.Applied:
        signature = context.signature
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)

        def call(**inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answer: tuple[torch.Tensor, ...] = flat(**inputs)
            return type(self).wrong(answer) if bool((inputs["input_ids"] == 49).any()) else answer

        return cpuaccel.Applied(call, evidence={"wrapped": 1})


class Transposing(_Wrong):
    name = "transposing"
    wrong = staticmethod(lambda answer: (answer[0].transpose(0, 1), answer[1]))


class Shortening(_Wrong):
    name = "shortening"
    wrong = staticmethod(lambda answer: (answer[0], answer[1][:1]))


class Narrowing(_Wrong):
    name = "narrowing"
    wrong = staticmethod(lambda answer: (answer[0], answer[1][:, :8]))


class Flattening(_Wrong):
    name = "flattening"
    wrong = staticmethod(lambda answer: (answer[0].flatten(), answer[1]))


class Halving(_Wrong):
    name = "halving"
    wrong = staticmethod(lambda answer: (answer[0].bfloat16(), answer[1]))


class Dropping(_Wrong):
    name = "dropping"
    wrong = staticmethod(lambda answer: answer[:1])


class Adding(_Wrong):
    name = "adding"
    wrong = staticmethod(lambda answer: (*answer, answer[0]))


class Listing(Fake):
    name = "listing"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        answer = encoded(model(**inputs))
        ids = inputs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        return list(answer) if bool((ids == 49).any()) else answer


FAULTS: list[tuple[type[Fake], str, str]] = [
    (RaisingLater, "fallback:error", "RuntimeError in the optimized model"),
    (NanLater, "fallback:nan", "NaN or infinity in the output"),
    (Transposing, "fallback:output_form", "a tensor of shape [12, 2, 16] in the output"),
    (Shortening, "fallback:output_form", "a tensor of shape [1, 16] in the output"),
    (Narrowing, "fallback:output_form", "a tensor of shape [2, 8] in the output"),
    (Flattening, "fallback:output_form", "a tensor of shape [384] in the output"),
    (Halving, "fallback:output_form", "a tensor of torch.bfloat16 instead of torch.float32"),
    (Listing, "fallback:output_form", "a list instead of a Encoded in the output"),
    (Dropping, "fallback:error", "BackendError in the optimized model"),
    (Adding, "fallback:error", "BackendError in the optimized model"),
]


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Opaque, *(backend for backend, *_ in FAULTS))


def same(answer: object, expected: object) -> bool:
    return type(answer) is Encoded and all(map(torch.equal, answer, encoded(expected)))


@pytest.mark.parametrize(
    ("backend", "key", "reason"), FAULTS, ids=[backend.name for backend, *_ in FAULTS]
)
def test_the_original_serves_a_fault_and_it_is_counted(
    backend: type[Fake], key: str, reason: str
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend.name], example_inputs=batch(), strict=False)
    assert same(fast(**BAD), model(**BAD))
    assert same(fast(**batch()), model(**batch()))
    assert fast.report.calls == {key: 1, "optimized": 1}
    assert reason in fast.report.fallbacks[key]


@pytest.mark.parametrize(
    ("backend", "key", "reason"), FAULTS, ids=[backend.name for backend, *_ in FAULTS]
)
def test_a_fault_raises_with_strict(backend: type[Fake], key: str, reason: str) -> None:
    fast = cpuaccel.optimize(encoder(), [backend.name], example_inputs=batch(), strict=True)
    with pytest.raises(cpuaccel.StepError, match=re.escape(reason)):
        fast(**BAD)
    assert key not in fast.report.calls


def test_many_faults_in_a_row_switch_it_off_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["raising_later"], example_inputs=batch())
    for _ in range(MAX_FAULTS + 2):
        assert same(fast(**BAD), model(**BAD))
    assert same(fast(**batch()), model(**batch()))
    reason = "RuntimeError in the optimized model"
    off = f"switched off after {MAX_FAULTS} consecutive faults, the last one: {reason}"
    assert fast.report.calls == {"fallback:error": MAX_FAULTS, "fallback:switched_off": 3}
    assert fast.report.fallbacks["fallback:switched_off"] == off
    warnings = [r.getMessage() for r in caplog.records if r.getMessage().startswith("the variant")]
    assert warnings == [
        "the variant for input_ids: int64[2, 12], attention_mask: int64[2, 12] is "
        f"{off}. The original serves these calls from now on; load_state_dict() or another "
        "optimize() rebuilds the variant"
    ]


def test_a_right_answer_between_faults_keeps_it_on() -> None:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    for _ in range(3 * MAX_FAULTS):
        fast(**BAD)
        fast(**batch())
    assert fast.report.calls["optimized"] == 3 * MAX_FAULTS


def test_other_ways_of_calling_stay_on() -> None:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    for _ in range(MAX_FAULTS):
        fast(**BAD)
    fast(input_ids=batch()["input_ids"])
    assert fast.report.calls["optimized"] == 1


def test_what_was_switched_off_is_back_with_other_weights() -> None:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    for _ in range(MAX_FAULTS):
        fast(**BAD)
    fast.load_state_dict(MaskedEncoder.seeded(1).state_dict())
    fast(**batch())
    assert fast.report.calls["optimized"] == 1


class Divides(torch.nn.Module):
    """Answers infinity by itself where it is asked to."""

    def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return x / by


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_where_the_original_itself_gives_infinity_it_is_no_fault(strict: bool) -> None:
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


def test_where_the_original_raises_too_its_error_is_raised_and_it_is_no_fault() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch(), strict=True)
    beyond = batch(first=1000)  # there are 50 words
    for _ in range(2 * MAX_FAULTS):
        with pytest.raises(IndexError, match="index out of range in self"):
            fast(**beyond)
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


class Buckets(torch.nn.Module):
    """Its answer is as long as the input, but never longer than 16: no rule that probes find."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :16] * 2


def test_the_original_is_the_judge_of_shapes_never_seen() -> None:
    fast = cpuaccel.optimize(Buckets(), ["opaque"], example_inputs=torch.ones(2, 12), strict=True)
    for _ in range(3):
        assert fast(torch.ones(3, 20)).shape == (3, 16)
    assert fast.report.calls == {
        "fallback:new_output_shape": 1,
        "optimized": 2,
    }


def test_an_engine_that_is_interrupted_is_not_in_fault(
    offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    class Interrupted(_Wrong):
        name = "interrupted"

        @staticmethod
        def wrong(answer: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            raise KeyboardInterrupt

    offer(Interrupted)
    fast = cpuaccel.optimize(encoder(), ["interrupted"], example_inputs=batch())
    with pytest.raises(KeyboardInterrupt):
        fast(**BAD)
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}
    assert caplog.records == []


def test_threads_that_fail_at_once_are_all_counted() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["raising_later"], example_inputs=batch())
    expected, wrong = model(**BAD), list[object]()

    def work() -> None:
        for _ in range(25):
            if not same(fast(**BAD), expected):
                wrong.append(fast.report)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert fast.report.calls.total() == 100
    assert fast.variants[0].off


def test_the_error_that_the_engine_raised_is_in_the_debug_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fast = cpuaccel.optimize(encoder(), ["raising_later"], example_inputs=batch())
    with caplog.at_level(logging.DEBUG, logger="cpuaccel"):
        fast(**BAD)
    assert "illegal instruction, nearly" in caplog.text
