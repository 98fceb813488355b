"""Whether it goes on answering rightly in threads, modes, copies, forks and with other weights."""

import contextlib
import copy
import os
import pickle
import select
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_same_output, resized
from cpuaccel.testing.subject import Subject

MODES: dict[str, Callable[[], Any]] = {
    "gradients": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}

THREADS, ROUNDS = 4, 5

FORK_SECONDS = 120
"""After which a forked process is taken for hanging."""


class RuntimeContract(Subject):
    """An answer is the original's in whatever state the process, the caller and the model are."""

    @pytest.fixture(scope="class")
    @classmethod
    def built(cls) -> Iterator[cpuaccel.OptimizedModel]:
        """One optimized model for the tests that leave it as it is."""
        self = cls()
        self.need_engine()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield self.optimize(self.model())
        torch.set_num_threads(threads)

    @pytest.mark.parametrize("mode", MODES)
    def test_every_torch_mode(self, built: cpuaccel.OptimizedModel, mode: str) -> None:
        inputs, before = self.example_inputs(), built.report.calls
        with torch.no_grad():
            expected = built.original(**inputs)
        with MODES[mode]():
            answer = built(**inputs)
        assert_same_output(answer, expected, inputs, self.tolerance())
        assert set(built.report.calls - before) == {"optimized"}, built.report

    def test_a_model_built_in_inference_mode_works_outside(self) -> None:
        self.need_engine()
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
        start, wrong = threading.Barrier(THREADS), list[BaseException]()

        def work(inputs: dict[str, torch.Tensor], answer: object) -> None:
            start.wait()
            try:
                for _ in range(ROUNDS):
                    assert_same_output(built(**inputs), answer, inputs, self.tolerance())
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=pair) for pair in zip(calls, expected)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert built.report.calls - before == {"optimized": THREADS * ROUNDS}, built.report

    def test_copies_have_their_own_weights_and_notice_changes(
        self, built: cpuaccel.OptimizedModel
    ) -> None:
        copied = pickle.loads(pickle.dumps(copy.deepcopy(built)))  # noqa: S301
        inputs = self.example_inputs()
        with torch.no_grad():
            expected = built.original(**inputs)
            assert_same_output(copied(**inputs), expected, inputs, self.tolerance())
            for parameter in copied.original.parameters():
                parameter.mul_(0.5)  # as an optimizer's step does, in place
            changed = copied.original(**inputs)
        assert_same_output(copied(**inputs), changed, inputs, self.tolerance())
        assert copied.report.calls == {"optimized": 2}, copied.report
        assert_same_output(built(**inputs), expected, inputs, self.tolerance())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_process_does_not_run_the_engine(self, built: cpuaccel.OptimizedModel) -> None:
        inputs = self.example_inputs()
        with torch.no_grad():
            expected = built.original(**inputs)

        def child() -> str:
            torch.set_num_threads(1)
            with torch.no_grad():
                answer = built.original(**inputs)
            assert_same_output(answer, expected, inputs)
            built(**inputs)
            return "the engine answered"

        assert run_in_fork(child) == (
            "StepError: strict=True was asked for, but the original had to answer: built before "
            "this process was forked"
        )


def run_in_fork(child: Callable[[], str]) -> str:
    """Run something in a forked process, and return what it returns, or the error that it raised.

    Raises:
        AssertionError: it hangs.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forking where there are threads
        process = os.fork()
    if process == 0:
        told = "ended without a word"
        try:
            told = child()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, told.encode()[:4096])
            os._exit(0)  # none of the parent's cleaning up
    os.close(writer)
    with contextlib.closing(open(reader, encoding="utf-8", errors="replace")) as stream:
        if not select.select([stream], [], [], FORK_SECONDS)[0]:
            os.kill(process, signal.SIGKILL)
        told = stream.read()
    os.waitpid(process, 0)
    assert told, f"it hung for {FORK_SECONDS} s in a forked process"
    return told
