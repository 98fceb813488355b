"""Backends that are right without padding, and not, or not always, with it."""

import pytest
import torch

import cpuaccel
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.fake_backends import Call, Fake, batch, encoded, encoder

LEFT, RIGHT, BOTH, NONE = (
    [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]],
    [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]],
    [[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]],
    [[1] * 6, [1] * 6],
)


class Onesided(Fake):
    """Does something else where any row begins with padding, and perhaps any other ends in it."""

    mixed_only = False

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        mask = inputs["attention_mask"]
        assert isinstance(mask, torch.Tensor)
        left, right = bool((mask[:, 0] == 0).any()), bool((mask[:, -1] == 0).any())
        if left and (right or not self.mixed_only):
            return self.otherwise(model, inputs)
        return model(**inputs)

    def otherwise(self, model: Call, inputs: dict[str, object]) -> object:
        return model(input_ids=inputs["input_ids"])


class LeftBlind(Onesided):
    name = "left_blind"


class MixedBlind(Onesided):
    name = "mixed_blind"
    mixed_only = True


class LeftRefusing(Onesided):
    name = "left_refusing"

    def otherwise(self, model: Call, inputs: dict[str, object]) -> object:
        raise ValueError("this kernel can't take padding on the left")


class MixedRefusing(LeftRefusing):
    name = "mixed_refusing"
    mixed_only = True


def check_answers(fast: cpuaccel.OptimizedModel) -> None:
    model = encoder()
    for mask in (NONE, LEFT, RIGHT, BOTH):
        inputs = {**batch(2, 6), "attention_mask": torch.tensor(mask)}
        assert torch.equal(encoded(fast(**inputs)).pooled, model(**inputs).pooled)


@pytest.mark.parametrize(
    ("backend", "where"), [(LeftBlind, "left padding"), (MixedBlind, "padding on both sides")]
)
def test_a_wrong_answer_on_some_padding_drops_the_step(
    offer: Offer, backend: type[Fake], where: str
) -> None:
    offer(backend)
    fast = cpuaccel.optimize(encoder(), [backend.name], example_inputs=batch(2, 6))
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.FAILED
    assert outcome.reason == f"it changes the outputs with {where}"
    check_answers(fast)


@pytest.mark.parametrize(
    ("backend", "refused"),
    [(LeftRefusing, "left padding"), (MixedRefusing, "padding on both sides")],
)
def test_a_padding_that_the_engine_refuses_is_left_to_the_original(
    offer: Offer, caplog: pytest.LogCaptureFixture, backend: type[Fake], refused: str
) -> None:
    offer(backend)
    fast = cpuaccel.optimize(encoder(), [backend.name], example_inputs=batch(2, 6))
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert refused in fidelity.refused
    assert fidelity.frozen == ()
    assert refused in str(fidelity)
    check_answers(fast)
    assert fast.report.calls["optimized"] >= 2
    assert fast.report.calls["fallback:error"] >= 1
    assert len(caplog.records) == 1


def test_padding_on_the_left_is_probed_where_the_last_row_is_mostly_padding(offer: Offer) -> None:
    offer(LeftRefusing)
    inputs = batch(2, 6)
    inputs["attention_mask"][1, 2:] = 0  # batches are often sorted, the longest first
    fast = cpuaccel.optimize(encoder(), [LeftRefusing.name], example_inputs=inputs)
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert "left padding" in fidelity.refused
    assert fidelity.frozen == ()
    check_answers(fast)
