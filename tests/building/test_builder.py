"""Steps are applied, skipped or failed; their side effects are undone."""

import logging
from typing import NamedTuple

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, Context, Form, Host, Signature, Step, Verdict
from cpuaccel.model.flatten import FlatModule
from cpuaccel.report import Status
from cpuaccel.testing import Encoded, fake_host
from cpuaccel.testing.state import changed, global_state
from tests.conftest import Offer
from tests.fake_backends import (
    Call,
    FailingApply,
    Faithful,
    Fake,
    Meddling,
    NothingFaster,
    Opaque,
    RaisingAccepts,
    RaisingCheck,
    Refusing,
    RefusingApply,
    ScriptTaking,
    Unavailable,
    VerboseApply,
    Wrapped,
    batch,
    encoded,
    encoder,
    same,
)
from tests.required import BF16, requires


class Refused(NamedTuple):
    """A backend that is not applied, and what its outcome must say."""

    backend: type[Fake]
    status: Status
    reason: str
    remedy: str


REFUSED = [
    pytest.param(
        Refused(
            FailingApply,
            Status.FAILED,
            "it raised RuntimeError: the engine has no such kernel",
            "Leave the step out, or report this",
        ),
        id="raises in apply",
    ),
    pytest.param(
        Refused(
            VerboseApply, Status.FAILED, "the engine says: no such kernel", "Use another engine"
        ),
        id="refuses in apply with a page",
    ),
    pytest.param(
        Refused(NothingFaster, Status.SKIPPED, "nothing is faster here", "Use another engine"),
        id="finds nothing to make faster",
    ),
    pytest.param(
        Refused(RefusingApply, Status.FAILED, "the model has an odd size", "Use an even size"),
        id="refuses in apply",
    ),
    pytest.param(
        Refused(
            RaisingCheck,
            Status.SKIPPED,
            "its plugin raised KeyError: 'no such package'",
            "Report this to the plugin's author",
        ),
        id="raises in check",
    ),
    pytest.param(
        Refused(
            RaisingAccepts,
            Status.SKIPPED,
            "its plugin raised AttributeError: no config",
            "Report this to the plugin's author",
        ),
        id="raises in accepts",
    ),
    pytest.param(
        Refused(
            Unavailable,
            Status.SKIPPED,
            "an-engine-of-tests is not installed",
            'Install "an-engine-of-tests>=2"',
        ),
        id="is not installed",
    ),
    pytest.param(
        Refused(
            Refusing,
            Status.SKIPPED,
            "the model has no layers of the kind",
            "Use another model",
        ),
        id="refuses the model",
    ),
]


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("example", [True, False], ids=["with example", "without example"])
def test_a_step_that_is_not_applied_is_logged_once_and_the_next_one_is_applied(
    offer: Offer, caplog: pytest.LogCaptureFixture, refused: Refused, example: bool
) -> None:
    backend, status, reason, remedy = refused
    offer(backend, Faithful)
    model, inputs = encoder(), batch()
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = cpuaccel.optimize(
            model, [backend.name, "faithful"], example_inputs=inputs if example else None
        )
        output = fast(**inputs)
        fast(input_ids=inputs["input_ids"])  # a second variant
    outcome, after = fast.report.outcomes
    assert (outcome.step, outcome.status) == (backend.name, status)
    assert (outcome.reason, outcome.remedy) == (reason, remedy)
    assert after.status is Status.APPLIED
    assert [record.getMessage() for record in caplog.records] == [str(outcome)]
    assert str(outcome) in str(fast.report)
    assert same(output, model(**inputs))


@pytest.mark.parametrize("refused", REFUSED)
def test_strict_raises_where_a_step_is_not_applied(offer: Offer, refused: Refused) -> None:
    backend = refused.backend
    offer(backend, Faithful)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder(), ["faithful", backend.name], example_inputs=batch(), strict=True
        )
    message = str(caught.value)
    assert "strict=True" in message
    assert backend.name in message
    assert f"{refused.reason}. {refused.remedy}" in message


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_an_optional_step_is_skipped_without_a_warning(
    offer: Offer, caplog: pytest.LogCaptureFixture, refused: Refused, strict: bool
) -> None:
    offer(refused.backend, Faithful)
    steps = [Step(refused.backend.name, optional=True), Step("faithful")]
    fast = cpuaccel.optimize(encoder(), steps, example_inputs=batch(), strict=strict)
    assert fast.report.applied == ("faithful",)
    assert fast.report.outcomes[0].reason == refused.reason
    assert caplog.records == []


def test_strict_names_all_unsupported_steps(offer: Offer) -> None:
    offer(Unavailable, Refusing, Faithful)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder(),
            ["unavailable", "faithful", "refusing"],
            example_inputs=batch(),
            strict=True,
        )
    first, unavailable, refusing = str(caught.value).splitlines()
    assert "unavailable,faithful,refusing is not supported" in first
    assert unavailable.startswith("  - unavailable: an-engine-of-tests is not installed. Install")
    assert refusing.startswith("  - refusing: the model has no layers of the kind. Use another")


def test_a_step_is_skipped_where_the_step_that_gives_its_form_failed(offer: Offer) -> None:
    class GivingScript(FailingApply):
        name = "giving_script"
        gives = Form.SCRIPT

    offer(GivingScript, ScriptTaking)
    fast = cpuaccel.optimize(encoder(), ["giving_script", "script_taking"], example_inputs=batch())
    outcome = fast.report.outcomes[1]
    assert outcome.status is Status.SKIPPED
    assert outcome.reason.startswith("script_taking takes a script, but the step before it")


def test_global_settings_that_a_step_changed_are_restored_and_listed(offer: Offer) -> None:
    offer(Meddling)
    before = global_state()
    fast = cpuaccel.optimize(encoder(), ["meddling"], example_inputs=batch(), strict=True)
    assert {
        "torch threads",
        "torch default dtype",
        "torch float32 matmul precision",
        "environment variables",
    } == {*fast.report.outcomes[0].restored}
    assert changed(before, global_state()) == []


def test_steps_are_applied_in_the_users_order(offer: Offer) -> None:
    class Second(Faithful):
        name = "second"

    offer(Faithful, Second, Opaque)
    fast = cpuaccel.optimize(encoder(), ["second", "faithful", "opaque"], example_inputs=batch())
    assert fast.report.applied == ("second", "faithful", "opaque")
    (variant,) = fast.variants
    assert isinstance(variant.model, FlatModule)
    assert isinstance(variant.model.model, Wrapped)
    assert isinstance(variant.model.model.model, Wrapped)


def test_a_compiled_callable_returns_the_originals_output_type(offer: Offer) -> None:
    offer(Opaque)
    model, inputs = encoder(), batch()
    fast = cpuaccel.optimize(model, ["opaque"], example_inputs=inputs, strict=True)
    assert same(fast(**inputs), model(**inputs))


def test_a_step_from_module_to_module_is_applied_once_for_all_variants(offer: Offer) -> None:
    applied: list[str] = []

    class Once(Fake):
        name = "once"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            applied.append("once")
            return super().apply(model, context)

    offer(Once, Opaque)
    fast = cpuaccel.optimize(encoder(), ["once", "opaque"], example_inputs=batch(), strict=True)
    fast(input_ids=batch()["input_ids"])
    assert len(fast.report.variants) == 2
    assert applied == ["once"]


def test_a_backend_receives_the_host_the_signature_and_the_dtype(offer: Offer) -> None:
    seen: list[object] = []

    class Recording(Fake):
        name = "recording"

        def check(self, host: Host) -> Verdict:
            seen.append(host)
            return super().check(host)

        def accepts(self, model: object, signature: Signature) -> Verdict:
            seen.append(signature.tensors)
            return Verdict.yes()

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            seen.append((context.host, context.dtype, context.inplace, model.training))
            return super().apply(model, context)

    offer(Recording)
    host, names = cpuaccel.host(), ("input_ids", "attention_mask")
    cpuaccel.optimize(encoder().train(), ["recording"], example_inputs=batch())
    assert seen[0] is host
    assert seen[1] == names
    assert seen[-1] == (host, None, False, False)


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


def test_inplace_passes_the_callers_model_to_backends(offer: Offer) -> None:
    seen: list[bool] = []

    class Replacing(Fake):
        name = "replacing"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            seen.append(context.inplace)
            return Applied(model, evidence={"same": 1})

    offer(Replacing)
    model = encoder()
    fast = cpuaccel.optimize(model, ["replacing"], example_inputs=batch(), inplace=True)
    assert seen == [True]
    assert fast.variants[0].model is model


def test_a_model_in_bfloat16_gets_the_tolerance_of_bfloat16(offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(
        encoder().bfloat16(), ["faithful"], example_inputs=batch(), strict=True
    )
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.tolerance == 5e-2
