"""The trial of one candidate: built, compared and timed in a process of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import CandidateStatus, Row
from cpuaccel.tuning.workers.messages import Job, Refused
from cpuaccel.tuning.workers.parent import WorkerFailure, Workers
from cpuaccel.tuning.workers.proof import Judge
from cpuaccel.tuning.workers.timing import ratios


class Trial:
    """The trial of one candidate; ``row`` is its result so far."""

    def __init__(
        self, candidate: Candidate, job: Job, subject: IO[bytes], memory_limit: int
    ) -> None:
        self.row = Row(candidate=candidate, status=CandidateStatus.MEASURED, weights=job.weights)
        self.worker = Workers([job], subject, memory_limit)
        self.pauses = 0
        self.built = False

    def pause(self) -> None:
        """Stop the process until ``worker.resume``."""
        self.pauses += 1
        self.worker.pause()

    def build(self, seconds: float, judge: Judge | None) -> None:
        """Wait for the build, and judge the outputs by the metric."""
        with self._update_row():
            (built,) = self.worker.built(seconds)
        self.row = replace(self.row, differences=built.differences)
        if isinstance(built, Refused):
            self.row = replace(self.row, status=CandidateStatus.REFUSED, reason=built.reason)
            return
        self.built = True
        build_seconds = max(built.seconds - self.worker.paused_seconds, 0.0)
        self.row = replace(self.row, build_seconds=build_seconds, evidence=built.evidence)
        if judge is not None:
            metric = judge.measure_tensors(self.worker.outputs())
            verdict = judge.verdict(metric)
            status = CandidateStatus.MEASURED if verdict else CandidateStatus.REFUSED
            self.row = replace(self.row, metric=metric, status=status, reason=verdict.reason)

    def measure(self, seconds: float, limit: float) -> None:
        """Time the candidate in turn with eager."""
        with self._update_row():
            (rounds,) = self.worker.measure(seconds, limit)
        speedup = Speedup.from_ratios(ratios(rounds, self.row.weights))
        self.row = replace(self.row, rounds=rounds, speedup=speedup)

    def fail(self, failure: WorkerFailure) -> None:
        """Record the failure of the process."""
        paused = self.pauses and failure.status is CandidateStatus.TIMED_OUT
        total = f" ({self.row.tried_seconds:.0f} s in total)" if paused else ""
        reason = failure.reason + total
        self.row = replace(self.row, status=failure.status, reason=reason)

    @contextmanager
    def _update_row(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.row = replace(
                self.row,
                peak_bytes=self.worker.peak,
                tried_seconds=self.row.tried_seconds + time.monotonic() - begun,
            )
