"""What becomes of each step of a pipeline, and of what it left behind."""

import logging
import os

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, Context, Form, Host, Signature, Step, Verdict
from cpuaccel.model.flatten import FlatModule
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.fake_backends import (
    FailingApply,
    Faithful,
    Fake,
    Foreseeing,
    Meddling,
    Opaque,
    RaisingAccepts,
    RaisingCheck,
    Refusing,
    ScriptTaking,
    Unavailable,
    Wrapped,
    batch,
    encoder,
)
from tests.required import BF16, requires

FAULTS = [
    pytest.param(
        FailingApply,
        Status.FAILED,
        "it raised RuntimeError: the engine has no such kernel",
        "Leave the step out, or report this",
        id="raises in apply",
    ),
    pytest.param(
        Foreseeing, Status.FAILED, "the model has an odd size", "Use an even size", id="foresees"
    ),
    pytest.param(
        RaisingCheck,
        Status.SKIPPED,
        "its plugin raised KeyError: 'no such package'",
        "Report this to the plugin's author",
        id="raises in check",
    ),
    pytest.param(
        RaisingAccepts,
        Status.SKIPPED,
        "its plugin raised AttributeError: no config",
        "Report this to the plugin's author",
        id="raises in accepts",
    ),
    pytest.param(
        Unavailable,
        Status.SKIPPED,
        "an-engine-of-tests is not installed",
        'Install "an-engine-of-tests>=2"',
        id="is not installed",
    ),
    pytest.param(
        Refusing,
        Status.SKIPPED,
        "the model has no layers of the kind",
        "Use another model",
        id="refuses the model",
    ),
]


@pytest.mark.parametrize(("backend", "status", "reason", "remedy"), FAULTS)
@pytest.mark.parametrize("waits", [False, True], ids=["with example", "without example"])
def test_a_step_that_cannot_be_applied_is_told_once_and_the_rest_goes_on(
    offer: Offer,
    caplog: pytest.LogCaptureFixture,
    backend: type[Fake],
    status: Status,
    reason: str,
    remedy: str,
    waits: bool,
) -> None:
    offer(backend, Faithful)
    model, inputs = encoder(), batch()
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = cpuaccel.optimize(
            model, [backend.name, "faithful"], example_inputs=None if waits else inputs
        )
        output = fast(**inputs)
        fast(input_ids=inputs["input_ids"])  # a second variant
    outcome, after = fast.report.outcomes
    assert (outcome.step, outcome.status) == (backend.name, status)
    assert (outcome.reason, outcome.remedy) == (reason, remedy)
    assert after.status is Status.APPLIED
    assert [record.getMessage() for record in caplog.records] == [
        f"{backend.name}: {status}. {reason}. {remedy}."
    ]
    assert f"step      {backend.name}: {status}. {reason}. {remedy}." in str(fast.report)
    assert torch.equal(output.pooled, model(**inputs).pooled)


@pytest.mark.parametrize(("backend", "status", "reason", "remedy"), FAULTS)
def test_strict_raises_what_would_have_been_warned(
    offer: Offer, backend: type[Fake], status: Status, reason: str, remedy: str
) -> None:
    offer(backend, Faithful)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder(), ["faithful", backend.name], example_inputs=batch(), strict=True
        )
    message = str(caught.value)
    assert "strict=True" in message
    assert backend.name in message
    assert f"{reason}. {remedy}" in message


@pytest.mark.parametrize(("backend", "status", "reason", "remedy"), FAULTS)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_an_optional_step_is_skipped_quietly(
    offer: Offer,
    caplog: pytest.LogCaptureFixture,
    backend: type[Fake],
    status: Status,
    reason: str,
    remedy: str,
    strict: bool,
) -> None:
    offer(backend, Faithful)
    steps = [Step(backend.name, optional=True), Step("faithful")]
    fast = cpuaccel.optimize(encoder(), steps, example_inputs=batch(), strict=strict)
    assert fast.report.applied == ("faithful",)
    assert fast.report.outcomes[0].reason == reason
    assert caplog.records == []


def test_strict_names_all_that_cannot_be_had(offer: Offer) -> None:
    offer(Unavailable, Refusing, Faithful)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder(),
            ["unavailable", "faithful", "refusing"],
            example_inputs=batch(),
            strict=True,
        )
    assert str(caught.value) == (
        "strict=True, but pipeline unavailable,faithful,refusing is not supported:\n"
        "  - unavailable: an-engine-of-tests is not installed. Install "
        '"an-engine-of-tests>=2"\n'
        "  - refusing: the model has no layers of the kind. Use another model"
    )


def test_a_step_whose_form_never_came_is_skipped(offer: Offer) -> None:
    class GivingScript(FailingApply):
        name = "giving_script"
        gives = Form.SCRIPT

    offer(GivingScript, ScriptTaking)
    fast = cpuaccel.optimize(encoder(), ["giving_script", "script_taking"], example_inputs=batch())
    assert fast.report.outcomes[1].status is Status.SKIPPED
    assert fast.report.outcomes[1].reason == (
        "script_taking takes a script, but the step before it that gives one was not applied"
    )


def test_global_settings_are_put_back_and_listed(offer: Offer) -> None:
    offer(Meddling)
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    fast = cpuaccel.optimize(encoder(), ["meddling"], example_inputs=batch(), strict=True)
    assert fast.report.outcomes[0].restored == (
        "torch threads",
        "torch default dtype",
        "torch float32 matmul precision",
        "environment variables",
    )
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "CPUACCEL_TEST_MEDDLED" not in os.environ


def test_steps_compose_in_the_users_order(offer: Offer) -> None:
    class Second(Faithful):
        name = "second"

    offer(Faithful, Second, Opaque)
    fast = cpuaccel.optimize(encoder(), ["second", "faithful", "opaque"], example_inputs=batch())
    assert fast.report.applied == ("second", "faithful", "opaque")
    (variant,) = fast.variants
    assert isinstance(variant.model, FlatModule)
    assert isinstance(variant.model.model, Wrapped)
    assert isinstance(variant.model.model.model, Wrapped)


def test_a_compiled_callable_gives_the_originals_type(offer: Offer) -> None:
    offer(Opaque)
    model, inputs = encoder(), batch()
    fast = cpuaccel.optimize(model, ["opaque"], example_inputs=inputs, strict=True)
    expected = model(**inputs)
    answer = fast(**inputs)
    assert type(answer) is type(expected)
    assert torch.equal(answer.states, expected.states)


def test_module_steps_are_shared_by_all_variants(offer: Offer) -> None:
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


def test_a_backend_sees_the_host_the_signature_and_the_dtype(offer: Offer) -> None:
    seen: list[object] = []

    class Looking(Fake):
        name = "looking"

        def check(self, host: Host) -> Verdict:
            seen.append(host)
            return super().check(host)

        def accepts(self, model: object, signature: Signature) -> Verdict:
            seen.append(signature.tensors)
            return Verdict.yes()

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            seen.append((context.host, context.dtype, context.inplace, model.training))
            return super().apply(model, context)

    offer(Looking)
    host, names = cpuaccel.host(), ("input_ids", "attention_mask")
    cpuaccel.optimize(encoder().train(), ["looking"], example_inputs=batch())
    assert seen[0] is host
    assert seen[1] == names
    assert seen[-1] == (host, None, False, False)


@requires(BF16)
def test_bfloat16_is_cast_to_before_the_first_step_that_does_not_cast(offer: Offer) -> None:
    class Looking(Fake):
        name = "looking"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
            assert context.dtype is torch.bfloat16
            return super().apply(model, context)

    offer(Looking)
    model, inputs = encoder(), batch()
    fast = cpuaccel.optimize(
        model, ["looking"], example_inputs=inputs, dtype="bfloat16", strict=True
    )
    assert fast.report.applied == ("dtype", "looking")
    assert fast.report.dtype == "bfloat16"
    answer = fast(**inputs)
    assert answer.pooled.dtype is torch.float32
    assert not torch.equal(answer.pooled, model(**inputs).pooled)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@requires(BF16)
def test_an_empty_pipeline_with_a_dtype_just_casts() -> None:
    fast = cpuaccel.optimize(encoder(), [], example_inputs=batch(), dtype=torch.bfloat16)
    assert fast.report.applied == ("dtype",)
    assert fast.report.outcomes[0].evidence == {"computes_in": "bfloat16"}
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


def test_bfloat16_that_this_host_cannot_have_is_left_out(
    offer: Offer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpuaccel.testing import fake_host

    slow = fake_host(isa=frozenset({"avx2"}), torch_isa="AVX2", bf16_speed=0.1)
    monkeypatch.setattr("cpuaccel.planning.plan.host", lambda: slow)
    offer(Faithful)
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch(), dtype="bfloat16")
    assert fast.report.applied == ("faithful",)
    assert fast.report.dtype == "the model's own"
    (record,) = caplog.records
    assert record.getMessage().startswith("bfloat16 is not used: bfloat16 matrix products run at")
    with pytest.raises(cpuaccel.StepError, match="dtype bfloat16: bfloat16 matrix products run at"):
        cpuaccel.optimize(encoder(), ["faithful"], dtype="bfloat16", strict=True)


def test_inplace_lets_the_model_itself_be_changed(offer: Offer) -> None:
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


def test_a_model_in_bfloat16_is_held_to_bfloat16s_tolerance(offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(
        encoder().bfloat16(), ["faithful"], example_inputs=batch(), strict=True
    )
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.tolerance == 5e-2
