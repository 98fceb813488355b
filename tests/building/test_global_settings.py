"""Global settings that a backend changes are restored."""

import importlib
import os

import pytest
import torch

import cpuaccel
from cpuaccel.building.global_settings import restored_random_state, restored_settings
from cpuaccel.testing.state import changed, global_state
from tests.conftest import Offer, Python
from tests.fake_backends import Meddling, batch, encoder
from tests.required import OPENVINO, ROOT, requires


def test_changed_settings_are_restored_and_listed() -> None:
    before = global_state()
    with restored_settings() as restored:
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        torch.set_float32_matmul_precision("medium")
        os.environ["CPUACCEL_TEST"] = "1"
        os.environ.pop("PATH")
        assert len(changed(before, global_state())) == 5
        assert restored == []
    assert restored == [
        "torch threads",
        "torch default dtype",
        "torch grad mode",
        "torch float32 matmul precision",
        "environment variables",
    ]
    assert changed(before, global_state()) == []


def test_unchanged_settings_are_not_listed() -> None:
    with restored_settings() as restored:
        torch.set_num_threads(torch.get_num_threads())
    assert restored == []


def test_settings_are_restored_after_an_error_which_is_raised() -> None:
    def fail() -> None:
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), restored_settings():
        fail()
    assert torch.get_default_dtype() is torch.float32


def test_the_random_state_is_restored() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with restored_random_state():
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


@requires("torch>=2.3")
def test_compiler_settings_are_restored_where_they_are_imported() -> None:
    dynamo = importlib.import_module("torch._dynamo.config")
    inductor = importlib.import_module("torch._inductor.config")
    before = dynamo.suppress_errors, inductor.freezing, inductor.cpp.threads
    with restored_settings() as restored:
        dynamo.suppress_errors = not before[0]
        inductor.freezing = not before[1]
        inductor.cpp.threads = 3
    assert restored == ["Dynamo's settings", "Inductor's settings"]
    assert (dynamo.suppress_errors, inductor.freezing, inductor.cpp.threads) == before


def test_restoring_does_not_import_the_compiler_settings(python: Python) -> None:
    code = """
import sys
from cpuaccel.building.global_settings import restored_settings
from cpuaccel.testing.state import changed, global_state
with restored_settings():
    pass
assert not {"torch._dynamo.config", "torch._inductor.config"} & sys.modules.keys()
"""
    python(code)


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


SIGNALS = """
import faulthandler, gc, signal, torch
faulthandler.enable()
import cpuaccel
from cpuaccel.building.global_settings import _read_signal_stack
from tests.fake_backends import batch, encoder
before = _read_signal_stack()
assert before[0], "faulthandler has one"
models = [cpuaccel.optimize(encoder(), ["openvino"], example_inputs=batch()) for _ in range(3)]
assert _read_signal_stack() == before
assert "signal stack" in models[0].report.outcomes[0].restored
while models:
    del models[0]
    gc.collect()
    assert _read_signal_stack() == before
received = []
signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
signal.raise_signal(signal.SIGUSR1)
print(received)
"""


@requires(*OPENVINO)
def test_signals_have_their_stack_after_openvino(python: Python) -> None:
    """OpenVINO leaves freed memory for them where its plugins are unloaded in another order."""
    assert python(SIGNALS, path=(ROOT,)).stdout == "[1]\n"
