"""The search: candidates are tried one at a time, each in its own process, within a budget."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import psutil
import torch

from cpuaccel.model.signature import Signature
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.tuning.board import Board
from cpuaccel.tuning.budget import MEASURE_SHARE, Budget
from cpuaccel.tuning.candidate import ORIGINAL, Candidate, NotTried
from cpuaccel.tuning.decisions.result import CandidateStatus, Instances, Row, Rule, Tuning
from cpuaccel.tuning.dispatch import find_rule
from cpuaccel.tuning.progress import Progress, Snapshot
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.runoff import run_off
from cpuaccel.tuning.space import Space
from cpuaccel.tuning.workers.messages import Job
from cpuaccel.tuning.workers.original import Original
from cpuaccel.tuning.workers.parent import WorkerFailure
from cpuaccel.tuning.workers.pickling import dump_model
from cpuaccel.tuning.workers.proof import Judge
from cpuaccel.tuning.workers.throughput import measure_instances, splits
from cpuaccel.tuning.workers.trial import Trial

MOST_PAUSED = 4
"""Maximum number of paused processes: each holds the model and a partial build."""


class Search:
    """One search. ``run`` may be called once."""

    def __init__(
        self,
        original: Original,
        judge: Judge | None,
        request: Request,
        host: Host,
        plugins: PluginHost,
        progress: Progress,
    ) -> None:
        self._original = original
        self._workload = original.workload
        self._judge = judge
        self._request = request
        self._host = host
        self._progress = progress
        self._threads = (
            request.threads if isinstance(request.threads, int) else torch.get_num_threads()
        )
        self._throughput = request.target == "throughput"
        begun = time.monotonic() - original.seconds
        self._budget = Budget(
            request.budget,
            throughput=self._throughput,
            begun=begun,
            eager_pass=original.warm_pass(request.budget * MEASURE_SHARE),
        )
        self._left = 0.0  # seconds for trials when the last one ended
        reference = original.reference
        self._space = Space(
            plugins,
            host,
            reference.eager,
            Signature(reference.binder, self._workload.batches[0]),
            request.precisions,
            request.widest_backend_tolerance,
            generates=request.generate is not None,
        )
        self._board = Board()
        self._paused: list[Trial] = []

    def run(self) -> Tuning:
        """Search."""
        with tempfile.TemporaryFile() as self._subject:
            dump_model(self._original.model, self._original.probes, self._subject)
            try:
                self._try_all()
                if self._request.threads == "auto":
                    self._try_threads()
                self._run_off()
            finally:  # the next phase needs the whole machine
                self._board.close()
                for trial in self._paused:
                    trial.worker.close()
            winner, why, rule = self._choose()
            instances = self._measure_instances(winner) if self._throughput else ()
        not_reached = [self._not_reached(c, self._left) for c in self._space.waiting]
        tuning = Tuning(
            target=self._request.target,
            winner=winner,
            why=why,
            rule=rule,
            rows=tuple(self._board.rows),
            not_tried=(*self._space.not_tried, *not_reached),
            shapes=self._workload.shapes,
            weights=self._workload.weights,
            threads=self._threads,
            own_precision=self._request.own_precision,
            arguments=self._request.code,
            instances=instances,
            metric=None if self._judge is None else self._judge.original,
            seconds=time.monotonic() - self._budget.begun,
        ).with_winner(winner)
        if tuning.more_time:
            tuning = replace(tuning, unfinished_budget=self._budget.seconds)
        self._report(f"building {winner} in this process", tuning.rows)
        return tuning

    def _try_all(self) -> None:
        ending = self._budget.trials_end
        while self._build_deadline(ending) > time.monotonic():
            candidate = self._space.take()
            if candidate is not None:
                self._advance(self._trial(candidate), ending)
            elif self._paused:
                trial = min(self._paused, key=self._turn)
                self._paused.remove(trial)
                trial.worker.resume()
                self._advance(trial, ending)
            else:
                return
        self._left = max(ending - time.monotonic(), 0.0)
        for trial in self._paused:
            trial.fail(
                WorkerFailure(CandidateStatus.TIMED_OUT, "not built before the budget ended")
            )
            self._record(trial)
        self._paused.clear()

    def _try_threads(self) -> None:
        best = self._board.best
        if best is None or best.speedup is None or not best.speedup.significant:
            return
        ending = self._budget.threads_end
        counts = {*splits(self._host.cores), self._host.cores} - {self._threads}
        for count in sorted(counts, reverse=True):
            candidate = replace(best.candidate, threads=count)
            if time.monotonic() < ending:
                self._advance(self._trial(candidate), ending)
            else:
                self._space.not_tried.append(self._not_reached(candidate, 0.0))

    def _advance(self, trial: Trial, ending: float) -> None:
        """Build and measure; pause a long build while other candidates are left."""
        candidate = trial.row.candidate
        left = self._request.candidate_seconds - trial.row.tried_seconds
        limit = min(left, max(self._build_deadline(ending) - time.monotonic(), 1.0))
        build_slice = self._budget.build_slice(trial.pauses)
        may_pause = (
            candidate.threads is None
            and build_slice < limit
            and len(self._paused) < MOST_PAUSED
            and bool(self._space.waiting or self._paused)
        )
        try:
            self._report(f"building {candidate}")
            trial.build(build_slice if may_pause else limit, self._judge)
            if trial.row.status is CandidateStatus.MEASURED:
                self._report(f"measuring {candidate}")
                limit = max(ending - time.monotonic(), 0.0) + self._budget.measure_limit
                trial.measure(self._budget.measure, limit)
        except WorkerFailure as failure:
            if may_pause and failure.status is CandidateStatus.TIMED_OUT and not trial.built:
                trial.pause()
                self._paused.append(trial)
                self._space.postpone(candidate)
                return
            trial.fail(failure)
        except BaseException:
            trial.worker.close()
            raise
        self._record(trial)

    def _record(self, trial: Trial) -> None:
        row = trial.row
        self._board.add(row, trial.worker, self._memory_limit)
        if row.candidate.threads is not None:
            return
        if row.speedup is not None:
            self._space.record(row.candidate, row.speedup.median)
        else:
            crashed = row.status is not CandidateStatus.REFUSED
            self._space.exclude(row.candidate, row.reason, all_precisions=crashed)

    def _trial(self, candidate: Candidate) -> Trial:
        batches = len(self._workload.batches)
        # The speedups so far do not apply: eager has other numbers of threads as well.
        to_beat = (0.0,) * batches if candidate.threads else self._board.to_beat(batches)
        job = self._job(candidate, candidate.threads or self._threads)
        job = replace(job, to_beat=to_beat, outputs=self._judge is not None)
        return Trial(candidate, job, self._subject, self._memory_limit)

    def _job(self, candidate: Candidate, threads: int) -> Job:
        tolerance = self._request.settings.tolerance
        weights, generate = self._workload.weights, self._request.generate
        return Job(
            candidate.steps, candidate.precision, threads, tolerance, weights, generate=generate
        )

    def _run_off(self) -> None:
        finalists = self._board.finalists
        rows = [row for row, _ in finalists]
        if len(finalists) > 1:
            self._report(f"run-off between {', '.join(str(row.candidate) for row in rows)}")
            rows = run_off(finalists, self._budget.run_off_end)
        self._board.rank(rows)

    def _choose(self) -> tuple[Candidate, str, Rule | None]:
        rows = self._board.rows
        if not rows or rows[0].speedup is None:
            return ORIGINAL, self._why_none(rows), None
        first, speedup = rows[0], rows[0].speedup
        if not speedup.significant:
            why = f"{first.candidate} is not significantly faster ({speedup})"
            return ORIGINAL, why, None
        rule = None
        # Several processes load one saved folder, which has one pipeline.
        several = self._throughput or self._request.generate is not None
        if first.candidate.threads is None and not several:
            comparable = [row for row in rows if row.candidate.threads is None]
            rule = find_rule(first, comparable, self._workload.shapes)
        baseline = first.candidate.baseline(self._request.own_precision)
        return first.candidate, f"{speedup} as fast as {baseline}", rule

    def _why_none(self, rows: Sequence[Row]) -> str:
        """Say why no candidate was measured."""
        if not rows and self._space.waiting:
            return f"the budget ended before any of {len(self._space.waiting)} candidates was tried"
        if not rows and self._space.not_tried:
            # The remedies differ, because they name the backend.
            reasons = Counter(one.reason.partition(". ")[0] for one in self._space.not_tried)
            reason, count = reasons.most_common(1)[0]
            return f"no candidate could be tried: {reason} ({count} of {reasons.total()})"
        late = sum(row.status is CandidateStatus.TIMED_OUT for row in rows)
        if late:
            return f"no candidate could be measured: {late} of {len(rows)} timed out"
        return "no candidate could be measured"

    def _measure_instances(self, winner: Candidate) -> tuple[Instances, ...]:
        instances = []
        for count in splits(self._host.cores):
            self._report(f"measuring {count} processes of {winner}")
            job = self._job(winner, self._host.cores // count)
            try:
                instances.append(
                    measure_instances(
                        self._subject,
                        self._workload,
                        job,
                        count,
                        memory_limit=self._memory_limit,
                        deadline=self._budget.end,
                    )
                )
            except WorkerFailure as failure:
                self._space.not_tried.append(NotTried(f"{count} processes", failure.reason))
        return tuple(instances)

    def _turn(self, trial: Trial) -> tuple[int, float]:
        return trial.pauses, -self._space.expected_speedup(trial.row.candidate)

    def _build_deadline(self, ending: float) -> float:
        """Return when a build must be finished for its timing to end in time."""
        return ending - self._budget.measure_limit

    def _not_reached(self, candidate: Candidate, left: float) -> NotTried:
        speedup = self._space.expected_speedup(candidate)
        reason = f"{self._budget.shortage(left)}; its parts promise {speedup:.1f}x"
        return NotTried(str(candidate), reason, for_time=True)

    @property
    def _memory_limit(self) -> int:
        if self._request.memory_limit is not None:
            return self._request.memory_limit
        return int(psutil.virtual_memory().available * 0.8)

    def _report(self, doing: str, rows: tuple[Row, ...] = ()) -> None:
        self._progress(
            Snapshot(
                doing,
                rows or tuple(self._board.rows),
                len(self._space.waiting),
                self._budget.begun,
                self._budget.seconds,
            )
        )
