"""The precision of a pipeline: when the model is cast, and the tolerance that follows."""

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, Context
from cpuaccel.testing import Encoded, fake_host
from tests.conftest import Offer
from tests.fake_backends import Call, Faithful, Fake, batch, encoded, encoder
from tests.required import BF16, requires


@requires(BF16)
def test_the_model_is_cast_to_bfloat16_before_the_first_step_that_does_not_cast(
    offer: Offer,
) -> None:
    class Recording(Fake):
        name = "recording"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
            assert context.dtype is torch.bfloat16
            return super().apply(model, context)

    offer(Recording)
    model, inputs = encoder(), batch()
    fast = cpuaccel.optimize(
        model, ["recording"], example_inputs=inputs, dtype="bfloat16", strict=True
    )
    assert fast.report.applied == ("dtype", "recording")
    assert fast.report.dtype == "bfloat16"
    output = fast(**inputs)
    assert output.pooled.dtype is torch.float32
    assert not torch.equal(output.pooled, model(**inputs).pooled)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("fault", ["refuses", "raises", "changes the outputs"])
def test_the_model_is_cast_where_the_step_that_would_have_cast_it_fails(
    offer: Offer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Casting(Fake):
        name = "casting"
        casts = True

        def change(self, model: Call, inputs: dict[str, object]) -> object:
            states, pooled = encoded(model(**inputs))
            return Encoded(states, pooled * 1.5)

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            if fault == "refuses":
                raise cpuaccel.BackendError("nothing to replace")
            if fault == "raises":
                raise RuntimeError("no such kernel")
            return super().apply(cpuaccel.shared_copy(model, torch.bfloat16), context)

    class Recording(Fake):
        name = "recording"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
            return super().apply(model, context)

    offer(Casting, Recording)
    monkeypatch.setattr("cpuaccel.planning.plan.host", fake_host)  # bfloat16 as on a server
    model, inputs = encoder(), batch()
    fast = cpuaccel.optimize(
        model, ["casting", "recording"], example_inputs=inputs, dtype="bfloat16"
    )
    assert [(o.step, o.status) for o in fast.report.outcomes] == [
        ("casting", "failed"),
        ("dtype", "applied"),
        ("recording", "applied"),
    ]
    difference = (fast(**inputs).pooled - model(**inputs).pooled).abs().max()
    assert 1e-5 < difference < 5e-2


@requires(BF16)
def test_an_empty_pipeline_with_a_dtype_only_casts() -> None:
    fast = cpuaccel.optimize(encoder(), [], example_inputs=batch(), dtype=torch.bfloat16)
    assert fast.report.applied == ("dtype",)
    assert fast.report.outcomes[0].evidence == {"computes_in": "bfloat16"}
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


def test_bfloat16_is_not_used_on_a_host_without_it(
    offer: Offer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = fake_host(isa=frozenset({"avx2"}), torch_isa="AVX2", bf16_speed=0.1)
    monkeypatch.setattr("cpuaccel.planning.plan.host", lambda: slow)
    offer(Faithful)
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch(), dtype="bfloat16")
    assert fast.report.applied == ("faithful",)
    assert fast.report.dtype == "the model's own"
    (record,) = caplog.records
    assert record.getMessage().startswith("bfloat16 is not used: ")
    with pytest.raises(cpuaccel.StepError, match="dtype bfloat16: "):
        cpuaccel.optimize(encoder(), ["faithful"], dtype="bfloat16", strict=True)


def test_a_model_in_bfloat16_gets_the_tolerance_of_bfloat16(offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(
        encoder().bfloat16(), ["faithful"], example_inputs=batch(), strict=True
    )
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.tolerance == 5e-2
