"""Trying candidates one after the other, each in its own process, until the budget ends."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

import psutil
import torch

from cpuaccel.checks.probes import Probe
from cpuaccel.model.signature import Binder, Signature
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.tuning.board import Board
from cpuaccel.tuning.budget import Budget
from cpuaccel.tuning.candidate import ORIGINAL, Candidate, NotTried
from cpuaccel.tuning.decisions.result import Instances, Row, Rule, Standing, Tuning
from cpuaccel.tuning.dispatch import find_rule
from cpuaccel.tuning.metric import Judge
from cpuaccel.tuning.progress import Progress, Snapshot
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.runoff import run_off
from cpuaccel.tuning.space import Space
from cpuaccel.tuning.workers.messages import Job
from cpuaccel.tuning.workers.parent import Died
from cpuaccel.tuning.workers.pickling import ship
from cpuaccel.tuning.workers.throughput import LaunchFailed, measure_instances, splits
from cpuaccel.tuning.workers.trial import Trial
from cpuaccel.tuning.workload import Workload

MOST_PAUSED = 4
"""Each holds the model, and what it has built of it so far."""


class Search:
    """One search."""

    def __init__(
        self,
        model: torch.nn.Module,
        workload: Workload,
        request: Request,
        *,
        eager: torch.nn.Module,
        host: Host,
        plugins: PluginHost,
        references: Sequence[Probe],
        reference_seconds: float,
        judge: Judge | None,
        progress: Progress,
    ) -> None:
        """Prepare it; nothing is run yet.

        Args:
            model: the original.
            workload: what to measure on.
            request: what is asked for.
            eager: the original in eval mode.
            host: this machine.
            plugins: the backends on offer.
            references: the original's answers.
            reference_seconds: what these took; they are a part of the budget.
            judge: calls the user's metric, where there is one.
            progress: is told whenever something else is done.
        """
        self._model = model
        self._workload = workload
        self._request = request
        self._references = references
        self._host = host
        self._judge = judge
        self._progress = progress
        self._threads = (
            request.threads if isinstance(request.threads, int) else torch.get_num_threads()
        )
        self._budget = Budget(
            time.monotonic() - reference_seconds,
            request.budget,
            request.target == "throughput",
            reference_seconds,
        )
        signature = Signature(Binder(model), workload.batches[0])
        self._space = Space(plugins, host, eager, signature, request.precisions, request.coarseness)
        self._board = Board()
        self._paused: list[Trial] = []

    def run(self) -> Tuning:
        """Search.

        Raises:
            ModelError: the model can't be sent to another process.
        """
        try:
            with tempfile.TemporaryFile() as subject:
                ship(self._model, self._references, subject)
                self._try_all(subject)
                if self._request.threads == "auto":
                    self._try_threads(subject)
            self._decide()
        finally:  # what goes on afterwards needs all of the machine
            self._board.close()
            for trial in self._paused:
                trial.worker.close()
        winner, why, rule = self._chosen()
        instances = self._side_by_side(winner) if self._request.target == "throughput" else ()
        tuning = Tuning(
            target=self._request.target,
            winner=winner,
            why=why,
            rule=rule,
            rows=tuple(self._board.rows),
            not_tried=(*self._space.not_tried, *map(self._too_late, self._space.waiting)),
            shapes=self._workload.shapes,
            weights=self._workload.weights,
            threads=self._threads,
            instances=instances,
            metric=None if self._judge is None else self._judge.original,
            seconds=time.monotonic() - self._budget.begun,
        ).choosing(winner)
        self._tell(f"building {winner} in this process", tuning.rows)
        return tuning

    def _try_all(self, subject: IO[bytes]) -> None:
        ending = self._budget.trials_end
        while self._last_build(ending) > time.monotonic():
            candidate = self._space.take()
            if candidate is not None:
                self._go_on(self._trial(candidate, subject), ending)
            elif self._paused:
                trial = min(self._paused, key=self._turn)
                self._paused.remove(trial)
                trial.resume()
                self._go_on(trial, ending)
            else:
                return
        for trial in self._paused:
            late = Died(Standing.TIMED_OUT, "it was not built yet when the budget ended")
            self._note(trial, trial.failed(late))
        self._paused.clear()

    def _try_threads(self, subject: IO[bytes]) -> None:
        """The best candidate with other numbers of threads, for the run-off."""
        best = self._board.best
        if best is None or best.speedup is None or not best.speedup.significant:
            return
        ending = self._budget.threads_end
        counts = {2**n for n in range(self._host.cores.bit_length())} | {self._host.cores}
        for count in sorted(counts - {self._threads}, reverse=True):
            candidate = replace(best.candidate, threads=count)
            if time.monotonic() < ending and count <= self._host.cores:
                self._go_on(self._trial(candidate, subject), ending)
            else:
                self._space.not_tried.append(self._too_late(candidate))

    def _go_on(self, trial: Trial, ending: float) -> None:
        """Build, prove and measure; put off what takes long while others have not been tried."""
        own_threads = trial.candidate.threads is None
        left = self._request.candidate_seconds - trial.spent
        limit = min(left, max(self._last_build(ending) - time.monotonic(), 1.0))
        patience = self._budget.patience(trial.pauses)
        may_wait = (
            own_threads
            and patience < limit
            and len(self._paused) < MOST_PAUSED
            and bool(self._space.waiting or self._paused)
        )
        try:
            self._tell(f"building {trial.candidate}")
            row = trial.build(patience if may_wait else limit, self._judge)
            if row.standing is Standing.MEASURED:
                self._tell(f"measuring {trial.candidate}")
                limit = max(ending - time.monotonic(), 0.0) + self._budget.whole_measure
                row = trial.measure(row, limit)
        except Died as death:
            if may_wait and death.kind == Standing.TIMED_OUT and not trial.built:
                trial.pause()
                self._paused.append(trial)
                self._space.put_off(trial.candidate)
                return
            row = trial.failed(death)
        except BaseException:
            trial.worker.close()
            raise
        self._note(trial, row)

    def _note(self, trial: Trial, row: Row) -> None:
        self._board.add(row, trial.worker, self._memory_limit)
        if row.candidate.threads is not None:
            return
        if row.speedup is not None:
            self._space.learn(row.candidate, row.speedup.median)
        else:
            violent = row.standing is not Standing.REFUSED
            self._space.refuse(row.candidate, row.reason, anywhere=violent)

    def _trial(self, candidate: Candidate, subject: IO[bytes]) -> Trial:
        batches = len(self._workload.batches)
        # With other threads eager is another: what was measured against it is nothing to beat.
        to_beat = (0.0,) * batches if candidate.threads else self._board.to_beat(batches)
        job = Job(
            candidate.steps,
            candidate.precision,
            candidate.threads or self._threads,
            self._request.settings.tolerance,
            self._workload.weights,
            self._budget.measure,
            to_beat,
            outputs=self._judge is not None,
        )
        return Trial(candidate, job, subject, self._memory_limit)

    def _decide(self) -> None:
        finalists = self._board.finalists
        if len(finalists) > 1:
            names = ", ".join(str(row.candidate) for row, _ in finalists)
            self._tell(f"run-off between {names}")
            ranked = run_off(finalists, self._workload.weights, self._budget.run_off_end)
        else:
            ranked = [row for row, _ in finalists]
        self._board.decide(ranked)

    def _chosen(self) -> tuple[Candidate, str, Rule | None]:
        """The winner, why it is that, and how several share the calls."""
        rows = self._board.rows
        if not rows or rows[0].speedup is None:
            return ORIGINAL, "no candidate could be measured, so the original is kept", None
        first, speedup = rows[0], rows[0].speedup
        if not speedup.significant:
            kept = f"eager is kept: the best, {first.candidate}, is no surer win than {speedup}"
            return ORIGINAL, kept, None
        rule = None
        if first.candidate.threads is None:
            comparable = [row for row in rows if row.candidate.threads is None]
            rule = find_rule(first, comparable, self._workload.shapes, self._workload.weights)
        return first.candidate, f"{speedup} as fast as eager", rule

    def _side_by_side(self, winner: Candidate) -> tuple[Instances, ...]:
        """The winner in several processes at once."""
        found = []
        for count in splits(self._host.cores):
            self._tell(f"running {count} processes of {winner} side by side")
            try:
                found.append(
                    measure_instances(
                        self._model,
                        self._references,
                        self._workload.weights,
                        winner,
                        count=count,
                        cores=self._host.cores,
                        tolerance=self._request.settings.tolerance,
                        deadline=self._budget.end,
                    )
                )
            except LaunchFailed as error:
                self._space.not_tried.append(NotTried(f"{count} processes", str(error)))
        return tuple(found)

    def _turn(self, trial: Trial) -> tuple[int, float]:
        """Which of the paused goes on first."""
        return trial.pauses, -self._space.promise(trial.candidate)

    def _last_build(self, ending: float) -> float:
        """When a candidate has to be built, to be measured in time."""
        return ending - self._budget.whole_measure

    def _too_late(self, candidate: Candidate) -> NotTried:
        reason = f"the budget of {self._request.budget:.0f} s ended before its turn"
        return NotTried(str(candidate), reason)

    @property
    def _memory_limit(self) -> int:
        if self._request.memory_limit is not None:
            return self._request.memory_limit
        return int(psutil.virtual_memory().available * 0.8)

    def _tell(self, doing: str, rows: tuple[Row, ...] = ()) -> None:
        self._progress(
            Snapshot(
                doing,
                rows or tuple(self._board.rows),
                self._workload.weights,
                len(self._space.waiting),
                self._budget.begun,
                self._budget.seconds,
            )
        )
