"""The trial of one candidate: built, compared and timed in a process of its own."""

import time
from dataclasses import replace
from typing import IO

from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Row, Standing
from cpuaccel.tuning.metric import Judge
from cpuaccel.tuning.workers.messages import Job, Refused
from cpuaccel.tuning.workers.parent import Worker, WorkerFailure
from cpuaccel.tuning.workers.timing import ratios


class Trial:
    """The trial of one candidate.

    Attributes:
        candidate: what is tried.
        worker: its process.
        spent: seconds so far.
        pauses: number of pauses so far.
        built: whether it is built, and its outputs match.
    """

    def __init__(
        self, candidate: Candidate, job: Job, subject: IO[bytes], memory_limit: int
    ) -> None:
        """Start the process. Args are those of ``Worker``."""
        self.candidate = candidate
        self.worker = Worker(job, subject, memory_limit)
        self.spent = 0.0
        self.pauses = 0
        self.built = False
        self._job = job

    def pause(self) -> None:
        """Stop the process until ``resume``."""
        self.pauses += 1
        self.worker.pause()

    def resume(self) -> None:
        """Continue the build."""
        self.worker.resume()

    def build(self, seconds: float, judge: Judge | None) -> Row:
        """Wait for the build, and judge the outputs by the metric.

        Args:
            seconds: to wait.
            judge: of the user's metric, if there is one.

        Returns:
            The row, refused or to be timed.

        Raises:
            WorkerFailure: the process failed, or took longer.
        """
        begun = time.monotonic()
        try:
            (built,) = self.worker.built(seconds)
        finally:
            self.spent += time.monotonic() - begun
        row = self._row(Standing.MEASURED, differences=built.differences)
        if isinstance(built, Refused):
            return replace(row, standing=Standing.REFUSED, reason=built.reason)
        self.built = True
        build_seconds = max(built.seconds - self.worker.paused_seconds, 0.0)
        row = replace(row, build_seconds=build_seconds, evidence=built.evidence)
        if judge is None:
            return row
        metric, fault = judge.judge(judge.restored(self.worker.outputs()))
        return replace(
            row,
            metric=metric,
            standing=Standing.REFUSED if fault else Standing.MEASURED,
            reason=fault,
        )

    def measure(self, row: Row, seconds: float, limit: float) -> Row:
        """Time the candidate in turn with eager.

        Args:
            row: the result of ``build``.
            seconds: duration of the timing.
            limit: seconds to wait for the result.

        Raises:
            WorkerFailure: the process failed, or took longer.
        """
        begun = time.monotonic()
        try:
            rounds = self.worker.measure(seconds, limit).rounds
        finally:
            self.spent += time.monotonic() - begun
        return replace(
            row,
            rounds=rounds,
            speedup=Speedup.from_ratios(ratios(rounds, self._job.weights)),
            peak_bytes=self.worker.peak,
            tried_seconds=self.spent,
        )

    def failed(self, failure: WorkerFailure) -> Row:
        """Return the row of a process that failed."""
        paused = self.pauses and failure.standing is Standing.TIMED_OUT
        total = f" ({self.spent:.0f} s in total)" if paused else ""
        return self._row(failure.standing, reason=failure.reason + total)

    def _row(self, standing: Standing, **found: object) -> Row:
        return Row(
            candidate=self.candidate,
            standing=standing,
            peak_bytes=self.worker.peak,
            tried_seconds=self.spent,
            **found,  # type: ignore[arg-type]
        )
