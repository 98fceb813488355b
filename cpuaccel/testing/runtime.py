"""Tests of the optimized model in threads, torch modes, copies, forks and with changed weights."""

import copy
import multiprocessing
import os
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_matches_original, assert_same_output, resized
from cpuaccel.testing.subject import Subject

MODES: dict[str, Callable[[], Any]] = {
    "gradients": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}

THREADS, ROUNDS = 4, 5

FORK_SECONDS = 120
"""Timeout of a forked process, in seconds."""


class RuntimeContract(Subject):
    """Outputs match the original's in every state of the process, the caller and the model."""

    @pytest.fixture
    def built(self) -> cpuaccel.OptimizedModel:
        """One optimized model, shared by the tests that do not change it."""
        return self.optimized_once()

    @pytest.mark.parametrize("mode", MODES)
    def test_every_torch_mode(self, built: cpuaccel.OptimizedModel, mode: str) -> None:
        inputs, before = self.example_inputs(), built.report.calls
        with torch.no_grad():
            expected = built.original(**inputs)
        with MODES[mode]():
            assert_same_output(built(**inputs), expected, inputs, self.tolerance())
        assert set(built.report.calls - before) == {"optimized"}, built.report

    def test_a_model_built_in_inference_mode_works_outside(self) -> None:
        model, inputs = self.model(), self.example_inputs()
        with torch.inference_mode():
            fast = self.optimize(model)
            expected = fast.original(**inputs)
        for mode in ("gradients", "inference_mode"):
            with MODES[mode]():
                assert_same_output(fast(**inputs), expected, inputs, self.tolerance())
        assert set(fast.report.calls) == {"optimized"}, fast.report

    def test_threads_get_their_own_outputs(self, built: cpuaccel.OptimizedModel) -> None:
        example, before = self.example_inputs(), built.report.calls
        axes = cpuaccel.Signature.from_inputs(built.original, example).axes
        sizes = range(1, THREADS + 1) if "batch" in self.varies else (2,) * THREADS
        calls = [resized(example, axes.batch, 0, size) for size in sizes]
        with torch.no_grad():
            expected = [built.original(**inputs) for inputs in calls]
        start = threading.Barrier(THREADS)

        def work(inputs: dict[str, torch.Tensor], output: object) -> None:
            start.wait()
            for _ in range(ROUNDS):
                assert_same_output(built(**inputs), output, inputs, self.tolerance())

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work, calls, expected))  # raises the first error of a thread
        assert built.report.calls - before == {"optimized": THREADS * ROUNDS}, built.report

    def test_copies_have_their_own_weights_and_notice_changes(
        self, built: cpuaccel.OptimizedModel
    ) -> None:
        copied = pickle.loads(pickle.dumps(copy.deepcopy(built)))  # noqa: S301
        inputs = self.example_inputs()
        assert_matches_original(copied, inputs, self.tolerance())
        with torch.no_grad():
            for parameter in copied.original.parameters():
                parameter.mul_(0.5)  # in place, as an optimizer's step does
        assert_matches_original(copied, inputs, self.tolerance())
        assert copied.report.calls == {"optimized": 2}, copied.report
        assert_matches_original(built, inputs, self.tolerance())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
    def test_a_forked_process_does_not_run_the_engine(self, built: cpuaccel.OptimizedModel) -> None:
        inputs = self.example_inputs()
        with torch.no_grad():
            expected = built.original(**inputs)

        def child() -> str:
            torch.set_num_threads(1)
            with torch.no_grad():
                output = built.original(**inputs)
            assert_same_output(output, expected, inputs)
            built(**inputs)
            return "the engine ran"

        error = run_in_fork(child)  # strict=True raises instead of falling back
        assert error.startswith("StepError:"), error
        assert "fork" in error


def run_in_fork(child: Callable[[], str]) -> str:
    """Run a function in a forked process.

    Returns:
        What it returned, or the type and message of the error that it raised.

    Raises:
        AssertionError: it took longer than ``FORK_SECONDS``.
        EOFError: the process was ended by a signal.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        try:
            sender.send(child())
        except BaseException as error:
            sender.send(f"{type(error).__name__}: {error}")
        os._exit(0)  # without the parent's cleanup

    process = context.Process(target=work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns about fork in a process with threads
        process.start()
    sender.close()
    with receiver:
        replied = receiver.poll(FORK_SECONDS)
        process.kill()
        process.join()
        assert replied, f"the forked process did not end within {FORK_SECONDS} s"
        return str(receiver.recv())
