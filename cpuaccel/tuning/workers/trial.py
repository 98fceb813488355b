"""One candidate on trial: built, proven and timed in a process of its own."""

import time
from dataclasses import replace
from typing import IO

from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Row, Standing
from cpuaccel.tuning.metric import Judge
from cpuaccel.tuning.workers.messages import Job, Refused
from cpuaccel.tuning.workers.parent import Died, Worker
from cpuaccel.tuning.workers.timing import ratios


class Trial:
    """A candidate's process, and what is found of it.

    Attributes:
        candidate: what is tried.
        worker: its process.
        spent: seconds that it has had.
        pauses: how often it has made room for others.
        built: whether it was built and proven.
    """

    def __init__(
        self, candidate: Candidate, job: Job, subject: IO[bytes], memory_limit: int
    ) -> None:
        """Start it. Args are ``Worker``'s, but for the candidate."""
        self.candidate = candidate
        self.worker = Worker(job, subject, memory_limit)
        self.spent = 0.0
        self.pauses = 0
        self.built = False
        self._job = job

    def pause(self) -> None:
        """Stop it until ``resume``."""
        self.pauses += 1
        self.worker.pause()

    def resume(self) -> None:
        """Let it go on building where it was."""
        self.worker.resume()

    def build(self, seconds: float, judge: Judge | None) -> Row:
        """Wait until it is built, and hold its answers against the original's.

        Returns:
            What was found of it, refused or yet to be timed.

        Raises:
            Died: it did not come that far.
        """
        begun = time.monotonic()
        try:
            built = self.worker.built(seconds)
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

    def measure(self, row: Row, limit: float) -> Row:
        """Time it in turn with eager.

        Args:
            row: what ``build`` found.
            limit: seconds after which it is given up.

        Raises:
            Died: it did not come that far.
        """
        begun = time.monotonic()
        try:
            rounds = self.worker.measure(self._job.seconds, limit).rounds
        finally:
            self.spent += time.monotonic() - begun
        return replace(
            row,
            rounds=rounds,
            speedup=Speedup.from_ratios(ratios(rounds, self._job.weights)),
            peak_bytes=self.worker.peak,
            tried_seconds=self.spent,
        )

    def failed(self, death: Died) -> Row:
        """What is noted of a process that ended, or had to be ended."""
        paused = self.pauses and death.kind == Standing.TIMED_OUT
        in_all = f" ({self.spent:.0f} s in all)" if paused else ""
        return self._row(Standing(death.kind), reason=death.reason + in_all)

    def _row(self, standing: Standing, **found: object) -> Row:
        return Row(
            candidate=self.candidate,
            standing=standing,
            peak_bytes=self.worker.peak,
            tried_seconds=self.spent,
            **found,  # type: ignore[arg-type]
        )
