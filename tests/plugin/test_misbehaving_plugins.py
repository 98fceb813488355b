"""Plugins that break the contract, and the message for each."""

import logging
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, Backend, Context, Host, Options, Signature, Verdict
from cpuaccel.plugin import slow
from cpuaccel.testing.state import changed, global_state, model_state
from tests.conftest import Offer, Python
from tests.fake_backends import Call, Changing, Fake, Wrapped, batch, encoder

Action = Callable[[torch.nn.Module], object]


class Zoo(Fake):
    """Does something in ``apply``."""

    name = "animal"
    action: ClassVar[Action]

    def apply(  # type: ignore[override]  # some return another type
        self, model: torch.nn.Module, context: Context
    ) -> object:
        return type(self).action(model)


def animal(action: Action) -> type[Zoo]:
    class Animal(Zoo):
        pass

    Animal.action = staticmethod(action)
    return Animal


def exits(model: torch.nn.Module) -> object:
    raise SystemExit(3)


def raises(model: torch.nn.Module) -> object:
    raise RuntimeError("out of ideas")


AUTHOR = " Report this to the plugin's author."

FAILS: dict[str, tuple[Action, str]] = {
    "ends the process": (
        exits,
        "it raised SystemExit: 3. Leave the step out, or report this.",
    ),
    "raises": (
        raises,
        "it raised RuntimeError: out of ideas. Leave the step out, or report this.",
    ),
    "returns nothing": (
        lambda model: None,
        "apply must return an Applied, got a NoneType." + AUTHOR,
    ),
    "returns the model": (
        lambda model: model,
        "apply must return an Applied, got a MaskedEncoder." + AUTHOR,
    ),
    "returns a string as the model": (
        lambda model: Applied("fast", evidence={"a": 1}),  # type: ignore[arg-type]
        "Applied.model must be callable, got a str." + AUTHOR,
    ),
    "returns a number as evidence": (
        lambda model: Applied(model, evidence=3),  # type: ignore[arg-type]
        "Applied.evidence must be a mapping, got a int." + AUTHOR,
    ),
    "returns a model without inputs": (
        lambda model: Applied(lambda: None, evidence={"a": 1}),
        "calling its model raised TypeError: ",
    ),
}


@pytest.mark.parametrize(("action", "reason"), FAILS.values(), ids=list(FAILS))
def test_a_step_that_fails_is_named_and_skipped(
    offer: Offer, caplog: pytest.LogCaptureFixture, action: Action, reason: str
) -> None:
    offer(animal(action))
    model = encoder()
    before = model_state(model)
    fast = cpuaccel.optimize(model, ["animal"], example_inputs=batch())
    with torch.no_grad():  # as the fallback: an engine in this process may compute otherwise
        assert torch.equal(fast(**batch()).pooled, model(**batch()).pooled)
    assert changed(before, model_state(model)) == []
    (record,) = caplog.records
    assert record.getMessage().startswith(f"animal: failed. {reason}")
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(model, ["animal"], example_inputs=batch(), strict=True)
    assert str(caught.value).startswith(f"strict=True, but animal: failed. {reason}")


def test_a_step_with_wrong_outputs_is_named_and_skipped(
    offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    offer(Changing)
    model = encoder()
    fast = cpuaccel.optimize(model, ["changing"], example_inputs=batch())
    with torch.no_grad():  # as the fallback: an engine in this process may compute otherwise
        assert torch.equal(fast(**batch()).pooled, model(**batch()).pooled)
    (record,) = caplog.records
    assert record.getMessage().startswith("changing: failed. it changes the outputs: 1 differs by ")


def scales_the_weights(model: torch.nn.Module) -> object:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return Applied(model, evidence={"scaled": 1})


def replaces_a_layer(model: torch.nn.Module) -> object:
    model.feed = torch.nn.Identity()
    return Applied(model, evidence={"replaced": 1})


CHANGED = "animal changed the model that it was given, which is the reference, instead of a copy. "
LEAVE_OUT = "Leave the step out, and report this to the plugin's author"


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_a_step_that_changes_the_weights_is_an_error(offer: Offer, strict: bool) -> None:
    offer(animal(scales_the_weights))
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(encoder(), ["animal"], example_inputs=batch(), strict=strict)
    assert str(caught.value) == (
        CHANGED + "The weights of your model have changed: load them again. " + LEAVE_OUT
    )


def test_a_step_that_replaces_layers_does_not_change_the_callers_model(offer: Offer) -> None:
    offer(animal(replaces_a_layer))
    model = encoder()
    before, expected = model_state(model), model(**batch()).pooled
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(model, ["animal"], example_inputs=batch())
    assert str(caught.value) == CHANGED + "Your model is unchanged. " + LEAVE_OUT
    assert changed(before, model_state(model)) == []
    assert torch.equal(model(**batch()).pooled, expected)


def meddles(model: torch.nn.Module) -> object:
    os.environ["CPUACCEL_TEST_MEDDLED"] = "1"
    os.chdir("/")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(1)
    random.seed(1)
    logging.basicConfig(force=True)
    return Applied(model, evidence={"meddled": 1})


def test_global_settings_are_restored_and_reported(offer: Offer) -> None:
    offer(animal(meddles))
    before, handlers = global_state(), logging.root.handlers[:]
    fast = cpuaccel.optimize(encoder(), ["animal"], example_inputs=batch(), strict=True)
    assert changed(before, global_state()) == []
    assert logging.root.handlers == handlers
    assert set(fast.report.outcomes[0].restored) == {
        "environment variables",
        "working directory",
        "torch threads",
        "torch default dtype",
        "torch deterministic algorithms",
        "logging's root handlers",
    }


class ReturnsString(Fake):
    name = "words"

    def check(self, host: Host) -> str:  # type: ignore[override]
        return "yes"


class ReturnsNone(Fake):
    name = "nothing"

    def accepts(self, model: Call, signature: Signature) -> None:  # type: ignore[override]
        return None


class Exits(Fake):
    name = "exits"

    def check(self, host: Host) -> Verdict:
        raise SystemExit(1)


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (ReturnsString, "its plugin must return a Verdict, got a str"),
        (ReturnsNone, "its plugin must return a Verdict, got a NoneType"),
        (Exits, "its plugin raised SystemExit: 1"),
    ],
)
def test_a_verdict_of_the_wrong_type_is_a_no(
    offer: Offer, backend: type[Backend[Options]], reason: str
) -> None:
    offer(backend)
    plan = cpuaccel.explain(encoder(), [backend.name], example_inputs=batch())
    assert str(plan.steps[0].verdict) == f"{reason}. Report this to the plugin's author"


def test_an_observer_that_ends_the_process_is_named(
    offer: Offer, observe: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    offer(animal(lambda model: Applied(Wrapped(model, lambda m, i: m(**i)), {"wrapped": 1})))

    def cpuaccel_before_step(step: cpuaccel.Step) -> None:
        raise SystemExit(1)

    observe(cpuaccel_before_step=cpuaccel_before_step)
    fast = cpuaccel.optimize(encoder(), ["animal"], example_inputs=batch(), strict=True)
    assert fast.report.applied == ("animal",)
    (record,) = caplog.records
    assert record.getMessage() == "plugin observer 1: hook cpuaccel_before_step failed"


def test_a_slow_step_is_logged_while_it_runs(
    offer: Offer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "SECONDS", 0.05)

    def waits(model: torch.nn.Module) -> object:
        while len(caplog.records) < 2:
            time.sleep(0.01)
        return Applied(Wrapped(model, lambda m, i: m(**i)), {"wrapped": 1})

    offer(animal(waits))
    cpuaccel.optimize(encoder(), ["animal"], example_inputs=batch(), strict=True)
    assert [record.getMessage() for record in caplog.records[:2]] == [
        f"still applying animal after {waited:.0f} s. Ctrl-C stops it and leaves the model "
        "unchanged"
        for waited in (0.05, 0.1)
    ]


BLOCKS = """
import threading, torch, cpuaccel
from cpuaccel.testing import MaskedEncoder
from tests.conftest import Plugin
from tests.fake_backends import Fake, batch
import signal, time

class Blocks(Fake):
    name = "blocks"
    def apply(self, model, context):
        main = threading.main_thread().ident
        threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
        while True:
            time.sleep(60)

cpuaccel.plugin_host().register(Plugin(cpuaccel_backends=lambda: [Blocks]), "blocking")
model = MaskedEncoder.seeded()
expected, threads = model(**batch()).pooled, torch.get_num_threads()
fast = cpuaccel.optimize(model, ["blocks"])
try:
    fast(**batch())
except KeyboardInterrupt:
    assert torch.equal(model(**batch()).pooled, expected)
    assert torch.get_num_threads() == threads
    print("interrupted", fast.variants, fast.report.calls)
"""


def test_ctrl_c_ends_a_blocking_step_and_leaves_the_model_unchanged(python: Python) -> None:
    root = __file__.rpartition("/tests/")[0]
    done = python(BLOCKS, path=(root,))  # type: ignore[arg-type]
    assert done.stdout == "interrupted [] Counter()\n", done.stderr


def install(folder: Path, name: str, source: str) -> None:
    """Install a plugin as pip does."""
    (folder / f"t_{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cpuaccel]\n{name} = t_{name}\n")


def test_a_slow_import_is_logged_while_it_runs(python: Python, tmp_path: Path) -> None:
    install(tmp_path, "blocks", "import time\nwhile True:\n    time.sleep(0.1)\n")
    code = """
import _thread, logging, cpuaccel
from cpuaccel.plugin import slow

class Impatient(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        if "plugin blocks" in record.getMessage():  # others may be slow on a busy machine
            _thread.interrupt_main()

slow.SECONDS = 0.05
logging.getLogger("cpuaccel").handlers = [Impatient()]
cpuaccel.backends()
"""
    done = python(code, path=(tmp_path,), check=False)
    assert done.returncode in (-signal.SIGINT, 130), done.stderr
    assert "still importing plugin blocks (blocks 1.0) after " in done.stdout


def test_a_keyboard_interrupt_in_an_import_is_not_caught(python: Python, tmp_path: Path) -> None:
    install(tmp_path, "interrupts", "raise KeyboardInterrupt")
    done = python("import cpuaccel; cpuaccel.backends()", path=(tmp_path,), check=False)
    assert done.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in done.stderr
