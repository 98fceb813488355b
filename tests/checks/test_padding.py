"""Backends that are right without padding, but not with all kinds of padding."""

import pytest
import torch

import cpuaccel
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.fake_backends import Call, Fake, MaskBlind, batch, encoder, same

LEFT, RIGHT, BOTH, NONE = (
    [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]],
    [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]],
    [[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]],
    [[1] * 6, [1] * 6],
)


class Onesided(Fake):
    """Differs where a row begins with padding; with ``mixed_only``, if one also ends with it."""

    mixed_only = False

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        mask = inputs["attention_mask"]
        assert isinstance(mask, torch.Tensor)
        left, right = bool((mask[:, 0] == 0).any()), bool((mask[:, -1] == 0).any())
        if left and (right or not self.mixed_only):
            return self.differ(model, inputs)
        return model(**inputs)

    def differ(self, model: Call, inputs: dict[str, object]) -> object:
        return model(input_ids=inputs["input_ids"])


class LeftBlind(Onesided):
    name = "left_blind"


class MixedBlind(Onesided):
    name = "mixed_blind"
    mixed_only = True


class LeftRefusing(Onesided):
    name = "left_refusing"

    def differ(self, model: Call, inputs: dict[str, object]) -> object:
        raise ValueError("this kernel can't take padding on the left")


class MixedRefusing(LeftRefusing):
    name = "mixed_refusing"
    mixed_only = True


def check_outputs(fast: cpuaccel.OptimizedModel) -> None:
    """Compare the outputs with the original's on each kind of padding."""
    model = encoder()
    for mask in (NONE, LEFT, RIGHT, BOTH):
        inputs = {**batch(2, 6), "attention_mask": torch.tensor(mask)}
        assert same(fast(**inputs), model(**inputs))


@pytest.mark.parametrize(
    ("backend", "padding"), [(LeftBlind, "left padding"), (MixedBlind, "padding on both sides")]
)
def test_a_step_that_is_wrong_with_some_padding_fails(
    offer: Offer, backend: type[Fake], padding: str
) -> None:
    offer(backend)
    fast = cpuaccel.optimize(encoder(), [backend.name], example_inputs=batch(2, 6))
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.FAILED
    assert outcome.reason.endswith(f"with {padding}")
    check_outputs(fast)
    assert fast.report.calls == {"fallback:not_applied": 4}


@pytest.mark.parametrize(
    ("backend", "refused", "optimized"),
    [(LeftRefusing, "left padding", 2), (MixedRefusing, "padding on both sides", 3)],
)
def test_a_padding_that_the_engine_refuses_falls_back_to_the_original(
    offer: Offer,
    caplog: pytest.LogCaptureFixture,
    backend: type[Fake],
    refused: str,
    optimized: int,
) -> None:
    offer(backend)
    fast = cpuaccel.optimize(encoder(), [backend.name], example_inputs=batch(2, 6))
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert refused in fidelity.refused
    assert fidelity.frozen == ()
    assert refused in str(fidelity)
    check_outputs(fast)
    assert fast.report.calls == {"optimized": optimized, "fallback:error": 4 - optimized}
    assert len(caplog.records) == 1


def test_left_padding_is_probed_where_the_last_row_is_mostly_padding(offer: Offer) -> None:
    offer(LeftRefusing)
    inputs = batch(2, 6)
    inputs["attention_mask"][1, 2:] = 0  # batches are often sorted, the longest first
    fast = cpuaccel.optimize(encoder(), [LeftRefusing.name], example_inputs=inputs)
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert "left padding" in fidelity.refused
    assert fidelity.frozen == ()
    check_outputs(fast)


class NoisyPadding(Fake):
    """Returns something else where there is padding."""

    name = "noisy_padding"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        output, mask = model(**inputs), inputs["src_key_padding_mask"]
        assert isinstance(output, torch.Tensor)
        assert isinstance(mask, torch.Tensor)
        return torch.where(mask[..., None] == 0, output, output + 1)


def torch_encoder(*, batch_first: bool = True) -> torch.nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
    return torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()


@pytest.mark.filterwarnings("ignore:Converting mask without torch.bool")  # by torch 1.13
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_the_padding_mask_of_torchs_encoders_is_varied(offer: Offer, dtype: torch.dtype) -> None:
    offer(MaskBlind)
    inputs = {
        "src": torch.randn(2, 6, 16),
        "src_key_padding_mask": torch.zeros(2, 6, dtype=dtype),  # no padding
    }
    fast = cpuaccel.optimize(torch_encoder(), ["mask_blind"], example_inputs=inputs)
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.FAILED
    assert "padding" in outcome.reason


@pytest.mark.parametrize(("length", "applied"), [(6, True), (2, False)])
def test_what_torchs_encoders_return_for_padding_is_ignored(
    offer: Offer, length: int, applied: bool
) -> None:
    """In a square mask, rows and tokens can't be told apart: all of the output is compared."""
    offer(NoisyPadding)
    mask = torch.zeros(2, length, dtype=torch.bool)
    mask[1, length // 2 :] = True
    inputs = {"src": torch.randn(2, length, 16), "src_key_padding_mask": mask}
    fast = cpuaccel.optimize(torch_encoder(), ["noisy_padding"], example_inputs=inputs)
    assert (fast.report.outcomes[0].status is Status.APPLIED) == applied
