"""Each test of the conformance kit for steppers fails on a stepper that breaks its rule."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel import Backend, Options
from cpuaccel.testing import BackendContract, GenerationContract
from cpuaccel.testing.hosts import ODD_HOSTS
from tests.conftest import Offer, Python
from tests.generation.broken_steppers import (
    ChunkBlind,
    Copying,
    Crashing,
    Crossing,
    Curt,
    Emptying,
    FaithfulStepping,
    Forgetting,
    Hooking,
    Negating,
    OneBuffer,
    OneCache,
    Remembering,
    Silent,
    SingleRowed,
    Spoiling,
    Undeclared,
    UnloadingCopies,
)
from tests.generation.steppers import Step, as_it_is, other_steppers, stepping

TUTORIAL = Path(__file__).parents[2] / "docs" / "writing_a_plugin.md"

FAILURES = (
    *(AssertionError, cpuaccel.StepError, pytest.fail.Exception),
    *(AttributeError, RuntimeError),  # the stepper's own
)


@pytest.fixture(autouse=True)
def _forget() -> None:
    for kept in (Remembering.models, Copying.weights, OneCache.latest, OneBuffer.buffers):
        kept.clear()


def contract(backend_class: type[Backend[Options]], offer: Offer) -> GenerationContract:
    offer(backend_class)

    class Subject(GenerationContract):
        backend = backend_class.name

    return Subject()


Check = Callable[[GenerationContract], None]


def greedy(kit: GenerationContract) -> None:
    kit.test_greedy_text_is_the_originals("float32")


def beams(kit: GenerationContract) -> None:
    kit.test_beams_are_the_originals("padded")


def turns(kit: GenerationContract) -> None:
    for order in ("fof", "ofo"):
        kit.test_the_original_goes_on_with_the_same_cache(order)


def verdicts(kit: GenerationContract) -> None:
    for host in ODD_HOSTS.values():
        kit.test_check_generation_returns_a_verdict(host)


BROKEN_RULES: list[tuple[type[FaithfulStepping], Check]] = [
    (Forgetting, greedy),
    (Forgetting, GenerationContract.test_an_unusual_decoder_is_served_or_left_to_the_original),
    (SingleRowed, beams),
    (ChunkBlind, GenerationContract.test_text_with_a_cropped_cache_is_the_originals),
    (Negating, turns),
    (Crossing, GenerationContract.test_threads_get_their_own_text),
    (Remembering, GenerationContract.test_two_models_are_independent),
    (Copying, GenerationContract.test_changed_weights_are_used),
    (Undeclared, verdicts),
    (Curt, verdicts),
    (Curt, greedy),
    (Silent, GenerationContract.test_the_report_says_applied_with_evidence),
    (Silent, GenerationContract.test_a_step_reads_the_weights_once),
    (OneCache, GenerationContract.test_two_caches_side_by_side),
    (OneBuffer, GenerationContract.test_logits_that_are_kept_do_not_change),
    (Hooking, GenerationContract.test_a_stepper_does_not_change_its_model),
    (Spoiling, GenerationContract.test_the_callers_model_is_unchanged),
    (Spoiling, GenerationContract.test_a_stepper_does_not_change_its_model),
    (Emptying, GenerationContract.test_the_original_is_exact_after_weights_were_unloaded),
    (UnloadingCopies, GenerationContract.test_only_parameters_of_the_model_are_unloaded),
    (Crashing, GenerationContract.test_unusual_decoders_are_refused_by_backend_errors),
    (Curt, GenerationContract.test_unusual_decoders_are_refused_by_backend_errors),
]


@pytest.mark.parametrize(
    ("backend", "check"), BROKEN_RULES, ids=[f"{b.__name__}-{c.__name__}" for b, c in BROKEN_RULES]
)
def test_a_broken_rule_fails_its_test(
    offer: Offer, backend: type[FaithfulStepping], check: Check
) -> None:
    with pytest.raises(FAILURES):
        check(contract(backend, offer))
    check(contract(FaithfulStepping, offer))


def test_each_test_is_broken_by_one() -> None:
    named = {
        "greedy": "test_greedy_text_is_the_originals",
        "beams": "test_beams_are_the_originals",
        "turns": "test_the_original_goes_on_with_the_same_cache",
        "verdicts": "test_check_generation_returns_a_verdict",
    }
    broken = {named.get(check.__name__, check.__name__) for _, check in BROKEN_RULES}
    assert broken == {name for name in dir(GenerationContract) if name.startswith("test_")}


@pytest.mark.parametrize("fault", other_steppers())
def test_wrong_steppers_fail(offer: Offer, fault: str) -> None:
    step: Step = other_steppers()[fault]
    with pytest.raises(FAILURES):
        greedy(contract(stepping(step), offer))


def test_a_stepper_that_runs_the_original_is_right(offer: Offer) -> None:
    greedy(contract(stepping(as_it_is), offer))


def test_the_stepper_of_the_tutorial_passes(offer: Offer) -> None:
    class PackedLinear(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.packed = linear.weight.detach().t().contiguous()
            self.nbytes = self.packed.nbytes

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs @ self.packed

    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "def stepper" in block)
    names: dict[str, Any] = {"cpuaccel": cpuaccel, "torch": torch, "PackedLinear": PackedLinear}
    exec(code, names)
    offer(names["Pack"])

    class Subject(GenerationContract):
        backend = "pack"
        architectures = ("llama",)

    kit = Subject()
    greedy(kit)
    kit.test_a_step_reads_the_weights_once()
    kit.test_the_original_is_exact_after_weights_were_unloaded()
    kit.test_a_stepper_does_not_change_its_model()
    kit.test_unusual_decoders_are_refused_by_backend_errors()


@pytest.mark.parametrize("backend", [Undeclared, FaithfulStepping])
def test_a_stepper_has_to_be_declared(offer: Offer, backend: type[FaithfulStepping]) -> None:
    offer(backend)

    class Subject(BackendContract):
        pass

    Subject.backend = backend.name
    if backend is FaithfulStepping:
        Subject().test_a_backend_that_generates_has_a_stepper()
        return
    with pytest.raises(AssertionError, match="generates"):
        Subject().test_a_backend_that_generates_has_a_stepper()


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
    subject = contract(FaithfulStepping, offer)
    monkeypatch.setattr(FaithfulStepping, "requires", requires, raising=False)
    monkeypatch.setattr(type(subject), "needs", needs)
    with pytest.raises(pytest.skip.Exception, match=reason):
        greedy(subject)


def test_importing_the_kit_does_not_import_transformers(python: Python) -> None:
    code = "import sys, cpuaccel.testing; print('transformers' in sys.modules)"
    assert python(code).stdout == "False\n"
