"""Forked processes, which have no threads of their parent."""

import os

import pytest
import torch

import cpuaccel
from cpuaccel.testing.runtime import run_in_fork
from tests.conftest import Offer
from tests.fake_backends import Faithful, batch, encoder
from tests.patience import stretched

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Faithful)


def test_in_a_fork_with_one_thread_the_original_serves_the_calls() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch())
    expected = model(**batch()).pooled.detach()

    def child() -> str:
        for _ in range(2):
            torch.testing.assert_close(fast(**batch()).pooled, expected)
        return str(dict(fast.report.calls))

    assert run_in_fork(child) == "{'fallback:fork': 2}"
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


def test_in_a_fork_with_more_threads_a_call_raises_with_remedies() -> None:
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch())

    def child() -> str:
        torch.set_num_threads(2)
        fast(**batch())
        return "no error"

    error = run_in_fork(child)
    assert error.startswith("ForkError: ")
    assert '"spawn"' in error
    assert "torch.set_num_threads(1)" in error


def test_a_model_not_built_before_is_built_in_the_fork() -> None:
    fast = cpuaccel.optimize(encoder(), ["faithful"], strict=True)

    def child() -> str:
        fast(**batch())
        return str(dict(fast.report.calls))

    assert run_in_fork(child) == "{'optimized': 1}"


def test_a_fork_while_another_thread_builds_does_not_hang() -> None:
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch())

    def child() -> str:
        fast(**batch())
        return str(dict(fast.report.calls))

    with fast._variants._lock:  # as held by a thread that builds
        calls = run_in_fork(child)
    assert calls == "{'fallback:fork': 1}"


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    """Call the model in the workers of a DataLoader."""

    def __init__(self, fast: cpuaccel.OptimizedModel) -> None:
        self.fast = fast

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        output: torch.Tensor = self.fast(**batch(1, 4 + index)).pooled
        return output


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_workers_of_a_data_loader_return_right_outputs() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch())
    loader = torch.utils.data.DataLoader(
        Rows(fast), num_workers=2, multiprocessing_context="fork", timeout=stretched(60)
    )
    outputs = list(loader)
    assert len(outputs) == 4
    for index, output in enumerate(outputs):
        expected = model(**batch(1, 4 + index)).pooled.detach()
        torch.testing.assert_close(output[0], expected)
