"""Each test of the conformance kit fails on a backend that breaks its rule."""

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, Context, Host, Options, Signature, Verdict
from cpuaccel.testing import BackendContract
from tests.conftest import Offer
from tests.fake_backends import (
    Call,
    Changing,
    Faithful,
    Fake,
    FrozenLength,
    MaskBlind,
    RaisingLater,
    batch,
)

Check = Callable[[BackendContract], None]


class Lax(Fake):
    name = "lax"

    class Options(Options):
        model_config: ClassVar = {"extra": "allow", "frozen": False}


class Shouting(Fake):
    name = "Shouting"
    summary = "two\nlines"


class Alone(Fake):
    name = "alone"
    excludes: ClassVar[Mapping[str, str]] = {"faithful": ""}


class Curt(Fake):
    name = "curt"

    def check(self, host: Host) -> Verdict:
        return Verdict.no("not supported.")

    def accepts(self, model: object, signature: Signature) -> Verdict:
        return Verdict.no("not supported")


class Brittle(Fake):
    name = "brittle"

    def check(self, host: Host) -> Verdict:
        return Verdict.yes() if host.packages["torch"] else Verdict.no("no torch", "Install torch")


class Silent(Fake):
    name = "silent"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        return Applied(model)


class Spoiling(Fake):
    name = "spoiling"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        for parameter in model.parameters():
            parameter.add_(0.0).mul_(1.0000001)
        return super().apply(model, context)


class Hooking(Fake):
    name = "hooking"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        model.register_forward_hook(lambda *_: None)
        return super().apply(model, context)


class Wandering(Fake):
    name = "wandering"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        os.chdir("/")
        return model(**inputs)


class Remembering(Fake):
    """Applies to the first model it got, whatever model it gets later."""

    name = "remembering"
    models: ClassVar[list[torch.nn.Module]] = []

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        self.models.append(model)
        return Applied(super().apply(self.models[0], context).model, evidence={"applied": 1})


class Crossing(Fake):
    """Stores a call's inputs where a concurrent call overwrites them."""

    name = "crossing"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        self.inputs = inputs
        time.sleep(0.01)
        return model(**self.inputs)


def unchanged(kit: BackendContract) -> None:
    kit.test_the_callers_model_the_inputs_and_global_settings_are_unchanged(training=False)


BROKEN_RULES: list[tuple[type[Fake], Check]] = [
    (Lax, BackendContract.test_options_are_frozen),
    (Lax, BackendContract.test_unknown_options_are_errors),
    (Shouting, BackendContract.test_the_name_is_valid),
    (Shouting, BackendContract.test_the_summary_is_one_line),
    (Alone, BackendContract.test_excludes_names_other_backends_with_reasons),
    (Curt, BackendContract.test_check_returns_a_verdict_for_this_host),
    (Curt, BackendContract.test_accepts_takes_the_model_under_test),
    (Curt, BackendContract.test_accepts_returns_a_verdict_without_tensor_inputs),
    (Silent, BackendContract.test_the_report_says_applied_with_evidence),
    (Spoiling, BackendContract.test_apply_does_not_change_its_model),
    (Hooking, BackendContract.test_apply_does_not_change_its_model),
    (Wandering, unchanged),
    (Remembering, BackendContract.test_models_are_independent_and_can_be_optimized_twice),
    (Changing, BackendContract.test_models_are_independent_and_can_be_optimized_twice),
]


@pytest.fixture(autouse=True)
def _restore_state() -> object:
    Remembering.models.clear()
    before = os.getcwd()
    yield
    os.chdir(before)


def contract(backend_class: type[Fake], offer: Offer) -> BackendContract:
    offer(backend_class)

    class Subject(BackendContract):
        backend = backend_class.name

    return Subject()


@pytest.mark.parametrize(
    ("backend", "check"), BROKEN_RULES, ids=[f"{b.__name__}-{c.__name__}" for b, c in BROKEN_RULES]
)
def test_a_broken_rule_fails_its_test(offer: Offer, backend: type[Fake], check: Check) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, cpuaccel.StepError)):
        check(contract(backend, offer))
    check(contract(Faithful, offer))


@pytest.mark.parametrize(
    ("backend", "check"),
    [
        (Crossing, BackendContract.test_threads_get_their_own_outputs),
        (Remembering, BackendContract.test_copies_have_their_own_weights_and_notice_changes),
    ],
)
def test_a_rule_broken_at_run_time_fails_its_test(
    offer: Offer, backend: type[Fake], check: Callable[..., None]
) -> None:
    wrong, right = contract(backend, offer), contract(Faithful, offer)
    with pytest.raises((AssertionError, cpuaccel.StepError)):
        check(wrong, wrong.optimize(wrong.model()))
    check(right, right.optimize(right.model()))


def test_a_wrong_refusal_fails_instead_of_skipping(offer: Offer) -> None:
    subject = contract(Curt, offer)
    with pytest.raises(AssertionError, match=r"refuses .* its requirements are met: not supported"):
        subject.test_the_report_says_applied_with_evidence()


@pytest.mark.parametrize(
    ("requires", "needs", "reason"),
    [
        ((("an-engine-of-tests>=2",),), {}, "an-engine-of-tests is not installed"),
        ((), {"a vector unit": False, "memory": True}, "this host lacks a vector unit$"),
    ],
)
def test_facts_about_the_host_decide_what_is_skipped(
    offer: Offer,
    monkeypatch: pytest.MonkeyPatch,
    requires: tuple[tuple[str, ...], ...],
    needs: dict[str, bool],
    reason: str,
) -> None:
    subject = contract(Faithful, offer)
    monkeypatch.setattr(Faithful, "requires", requires, raising=False)
    monkeypatch.setattr(type(subject), "needs", needs)
    with pytest.raises(pytest.skip.Exception, match=reason):
        subject.test_the_report_says_applied_with_evidence()


def test_a_check_that_raises_on_an_odd_host(offer: Offer) -> None:
    from cpuaccel.testing.hosts import ODD_HOSTS

    with pytest.raises(KeyError):
        contract(Brittle, offer).test_check_returns_a_verdict_for_odd_hosts(
            ODD_HOSTS["nothing installed"]
        )


@pytest.mark.parametrize("backend", [Changing, MaskBlind])
def test_wrong_outputs(offer: Offer, backend: type[Fake]) -> None:
    with pytest.raises(cpuaccel.StepError, match="it changes the outputs"):
        contract(backend, offer).test_outputs_match_the_original("float32")


def test_frozen_shapes_pass_because_each_gets_a_variant(offer: Offer) -> None:
    contract(FrozenLength, offer).test_outputs_match_the_original("float32")


def test_an_engine_that_raises_on_a_call(offer: Offer) -> None:
    offer(RaisingLater)

    class Subject(BackendContract):
        backend = "raising_later"

        def example_inputs(self) -> dict[str, torch.Tensor]:
            return batch()

        def variations(self) -> dict[str, dict[str, torch.Tensor]]:
            return {"another token": batch(first=49)}

    with pytest.raises(cpuaccel.StepError, match="RuntimeError"):
        Subject().test_outputs_match_the_original("float32")


PLUGIN = """
import cpuaccel
{listing}

class Backend(cpuaccel.Backend[cpuaccel.Options]):
    name = "of_a_module"
    summary = "a fake"
    takes = gives = cpuaccel.Form.MODULE

    def check(self, host):
        {check}
        return cpuaccel.Verdict.yes()

    def apply(self, model, context):
        import t_engine
"""


@pytest.mark.parametrize(
    ("listing", "check", "expected"),
    [
        ("", "pass", {}),
        ("import t_engine", "pass", {"listing": ["t_engine"]}),
        ("", "import t_engine", {"check": ["t_engine"]}),
    ],
    ids=["inert", "imports at the top", "imports in check"],
)
def test_engines_imported_too_early(
    offer: Offer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listing: str,
    check: str,
    expected: dict[str, list[str]],
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "t_engine.py").write_text("")
    (tmp_path / "t_plugin.py").write_text(PLUGIN.format(listing=listing, check=check))
    monkeypatch.delitem(sys.modules, "t_plugin", raising=False)
    subject = contract(importlib.import_module("t_plugin").Backend, offer)
    if not expected:
        subject.test_listing_and_check_import_no_engine()
        return
    with pytest.raises(AssertionError, match="import the engine inside apply") as caught:
        subject.test_listing_and_check_import_no_engine()
    assert str(next(iter(expected.values()))) in str(caught.value)


def test_an_unknown_backend() -> None:
    class Subject(BackendContract):
        backend = "nowhere"

    with pytest.raises(AssertionError, match="Install your distribution"):
        Subject().test_the_summary_is_one_line()
