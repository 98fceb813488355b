"""Steps that are not applied are skipped or failed, with the reason."""

import logging
from typing import NamedTuple

import pytest

import cpuaccel
from cpuaccel import Form, Step
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.fake_backends import (
    FailingApply,
    Faithful,
    Fake,
    NothingFaster,
    RaisingAccepts,
    RaisingCheck,
    Refusing,
    RefusingApply,
    ScriptTaking,
    Unavailable,
    VerboseApply,
    batch,
    encoder,
    same,
)


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
            'Run: pip install "an-engine-of-tests>=2"',
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
    assert unavailable.startswith("  - unavailable: an-engine-of-tests is not installed. Run:")
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
