"""Trying candidates one after the other, each in its own process, until the budget ends."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO

import psutil
import torch

from cpuaccel.fidelity import Probe
from cpuaccel.hostinfo import Host
from cpuaccel.plugins import PluginHost
from cpuaccel.signature import Binder, Signature
from cpuaccel.structure import Structure
from cpuaccel.tuning.candidates import ORIGINAL, Candidate, NotTried, Space
from cpuaccel.tuning.dispatch import find_rule
from cpuaccel.tuning.instances import LaunchFailed, measure_instances, splits
from cpuaccel.tuning.measure import Speedup, by_batch, ratios
from cpuaccel.tuning.messages import Built, Job, Refused
from cpuaccel.tuning.process import Died, Worker
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.result import Instances, Row, Standing, Tuning
from cpuaccel.tuning.runoff import Finalist, run_off
from cpuaccel.tuning.shipping import ship
from cpuaccel.tuning.workload import Workload

FINALISTS = 3
RUN_OFF_SHARE = 0.15
"""Of the budget, kept for the last decision."""

INSTANCES_SHARE = 0.2
"""Of the budget, kept for processes side by side, where throughput is the target."""

MEASURE_SHARE = 1 / 25
LONGEST_MEASURE = 10.0
PATIENCE_SHARE = 1 / 8
"""Of the budget, after which a candidate that is not built yet makes room for others."""

MOST_PAUSED = 2

NEAR = 0.85
"""Share of the best candidate's speed from which a candidate comes to the run-off."""


@dataclass(frozen=True)
class Snapshot:
    """How far a search is.

    Attributes:
        doing: what is being done.
        rows: the candidates tried so far.
        waiting: how many are left.
        begun: when it began, on ``time.monotonic``'s clock.
        budget: seconds that it may take.
    """

    doing: str
    rows: tuple[Row, ...]
    waiting: int
    begun: float
    budget: float


Progress = Callable[[Snapshot], None]


@dataclass
class _Attempt:
    """A candidate on trial, perhaps put off, and the seconds that it has had."""

    candidate: Candidate
    worker: Worker
    spent: float = 0.0


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
            progress: is told whenever something else is done.
        """
        self._model = model
        self._workload = workload
        self._request = request
        self._references = references
        self._host = host
        self._progress = progress
        self._threads = (
            request.threads if isinstance(request.threads, int) else torch.get_num_threads()
        )
        self._structures = [Structure.of(p.output) for p in references] if request.metric else []
        self._metric = request.metric and float(request.metric([p.output for p in references]))
        signature = Signature(Binder(model), workload.batches[0])
        self._space = Space(plugins, host, eager, signature, request.precisions, request.coarseness)
        self._rows: list[Row] = []
        self._kept: dict[Candidate, Worker] = {}
        self._paused: list[_Attempt] = []
        self._begun = time.monotonic()

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
                return self._found()
        finally:
            for worker in (*self._kept.values(), *(one.worker for one in self._paused)):
                worker.close()

    def _try_all(self, subject: IO[bytes]) -> None:
        ending = self._deciding - self._request.budget * RUN_OFF_SHARE
        while time.monotonic() < ending:
            candidate = self._space.take()
            if candidate is not None:
                self._try(candidate, subject, ending)
            elif self._paused:
                attempt = max(self._paused, key=lambda one: self._space.promise(one.candidate))
                self._paused.remove(attempt)
                attempt.worker.resume()
                self._go_on(attempt, ending)
            else:
                return
        for attempt in self._paused:
            self._fail(attempt, "timed out", "it was not built yet when the budget ended")
        self._paused.clear()

    def _try_threads(self, subject: IO[bytes]) -> None:
        """The best candidate with other numbers of threads, for the run-off."""
        best = self._best
        ending = self._deciding - self._request.budget * RUN_OFF_SHARE / 2
        if best is None or best.speedup is None or not best.speedup.significant:
            return
        counts = {2**n for n in range(self._host.cores.bit_length())} | {self._host.cores}
        for count in sorted(counts - {self._threads}, reverse=True):
            candidate = replace(best.candidate, threads=count)
            if time.monotonic() < ending and count <= self._host.cores:
                self._try(candidate, subject, ending)
            else:
                self._space.not_tried.append(
                    NotTried(str(candidate), "the budget ended before its turn")
                )

    def _try(self, candidate: Candidate, subject: IO[bytes], ending: float) -> None:
        worker = Worker(self._job(candidate), subject, self._memory_limit)
        self._go_on(_Attempt(candidate, worker), ending)

    def _go_on(self, attempt: _Attempt, ending: float) -> None:
        """Build, prove and measure; put off what takes long while others have not been tried."""
        candidate, worker = attempt.candidate, attempt.worker
        self._tell(f"building {candidate}")
        begun = time.monotonic()
        left = self._request.candidate_seconds - attempt.spent
        limit = min(left, max(ending - begun, 1.0))
        others = candidate.threads is None and self._space.waiting
        patience = self._request.budget * PATIENCE_SHARE
        put_off = others and not attempt.spent and len(self._paused) < MOST_PAUSED
        try:
            built = worker.built(min(limit, patience) if put_off else limit)
        except Died as death:
            attempt.spent += time.monotonic() - begun
            if put_off and death.kind == Standing.TIMED_OUT and patience < limit:
                worker.pause()
                self._paused.append(attempt)
                self._space.put_off(candidate)
                return
            in_all = f" ({attempt.spent:.0f} s in all)" if worker.paused_seconds else ""
            self._fail(attempt, death.kind, death.reason + in_all)
            return
        except BaseException:
            worker.close()
            raise
        try:
            row = self._measured(candidate, worker, built, ending)
        except Died as death:
            attempt.spent += time.monotonic() - begun
            self._fail(attempt, death.kind, death.reason)
            return
        except BaseException:
            worker.close()
            raise
        attempt.spent += time.monotonic() - begun
        row = replace(row, peak_bytes=worker.peak, tried_seconds=attempt.spent)
        self._rows.append(row)
        if row.speedup is not None:
            self._kept[candidate] = worker
            self._keep_the_best()
        else:
            worker.close()
        if candidate.threads is None:
            self._learn(row)

    def _fail(self, attempt: _Attempt, kind: str, reason: str) -> None:
        """Note what became of a candidate whose process ended, or has to."""
        row = Row(
            candidate=attempt.candidate,
            standing=Standing(kind),
            reason=reason,
            peak_bytes=attempt.worker.peak,
            tried_seconds=attempt.spent,
        )
        attempt.worker.close()
        self._rows.append(row)
        if attempt.candidate.threads is None:
            self._learn(row)

    def _job(self, candidate: Candidate) -> Job:
        return Job(
            candidate.steps,
            candidate.precision,
            candidate.threads or self._threads,
            self._request.tolerance,
            self._workload.weights,
            self._measure_seconds,
            self._to_beat if candidate.threads is None else (0.0,) * len(self._to_beat),
            outputs=self._request.metric is not None,
        )

    def _measured(
        self, candidate: Candidate, worker: Worker, built: Built | Refused, ending: float
    ) -> Row:
        row = Row(candidate=candidate, standing=Standing.MEASURED, differences=built.differences)
        if isinstance(built, Refused):
            return replace(row, standing=Standing.REFUSED, reason=built.reason)
        row = replace(
            row,
            build_seconds=max(built.seconds - worker.paused_seconds, 0.0),
            evidence=built.evidence,
        )
        if self._request.metric is not None and self._metric is not None:
            outputs = [
                structure.restore(iter(tensors))
                for structure, tensors in zip(self._structures, worker.outputs())
            ]
            row = replace(row, metric=float(self._request.metric(outputs)))
            if reason := metric_fault(row.metric, self._metric, self._request.max_drop):
                return replace(row, standing=Standing.REFUSED, reason=reason)
        self._tell(f"measuring {row.candidate}")
        limit = max(ending - time.monotonic(), self._measure_seconds) + self._measure_seconds
        rounds = worker.measure(self._measure_seconds, limit).rounds
        speedup = Speedup.of(ratios(rounds, self._workload.weights))
        return replace(row, rounds=rounds, speedup=speedup)

    def _learn(self, row: Row) -> None:
        if row.speedup is not None:
            self._space.learn(row.candidate, row.speedup.median)
        else:
            violent = row.standing is not Standing.REFUSED
            self._space.refuse(row.candidate, row.reason, anywhere=violent)

    def _keep_the_best(self) -> None:
        """End the processes of all but the best few, and of all but one where memory is short."""
        # Other numbers of threads were measured against eager with as many: that compares with
        # nothing but the run-off.
        ranked = sorted(
            self._kept,
            key=lambda c: (c.threads is not None, -self._speedup(c).median),
        )
        best = self._speedup(ranked[0])
        held = 0
        for place, candidate in enumerate(ranked):
            held += self._kept[candidate].resident()
            near = place < FINALISTS and self._speedup(candidate).median >= NEAR * best.median
            fits = held <= self._memory_limit
            if place and not (fits and (near or candidate.threads is not None)):
                self._kept.pop(candidate).close()

    def _decide(self) -> None:
        finalists: list[Finalist] = [(self._row(c), w) for c, w in self._kept.items()]
        if len(finalists) > 1:
            names = ", ".join(str(row.candidate) for row, _ in finalists)
            self._tell(f"run-off between {names}")
            ranked = run_off(finalists, self._workload.weights, self._deciding)
        else:
            ranked = [row for row, _ in finalists]
        placed = {row.candidate for row in ranked}
        others = sorted(
            (row for row in self._rows if row.candidate not in placed),
            key=lambda row: -row.speedup.median if row.speedup else 0.0,
        )
        rows = [*ranked, *others]
        self._rows = [row for row in rows if row.standing is Standing.MEASURED] + [
            row for row in rows if row.standing is not Standing.MEASURED
        ]

    def _found(self) -> Tuning:
        weights, shapes = self._workload.weights, self._workload.shapes
        first = self._rows[0] if self._rows and self._rows[0].speedup else None
        rule = None
        if first is None or first.speedup is None:
            winner, why = ORIGINAL, "no candidate could be measured, so the original is kept"
        elif not first.speedup.significant:
            winner = ORIGINAL
            why = (
                f"eager is kept: the best, {first.candidate}, is no surer win than {first.speedup}"
            )
        else:
            winner, why = first.candidate, f"{first.speedup} as fast as eager"
            if winner.threads is None:
                comparable = [row for row in self._rows if row.candidate.threads is None]
                rule = find_rule(first, comparable, shapes, weights)
        for worker in self._kept.values():  # they would take part of the machine
            worker.close()
        self._kept.clear()
        instances = self._side_by_side(winner)
        tuning = Tuning(
            target=self._request.target,
            winner=winner,
            why=why,
            rule=rule,
            rows=tuple(self._rows),
            not_tried=(
                *self._space.not_tried,
                *(
                    NotTried(
                        str(candidate),
                        f"the budget of {self._request.budget:.0f} s ended before its turn",
                    )
                    for candidate in self._space.waiting
                ),
            ),
            shapes=shapes,
            weights=weights,
            threads=self._threads,
            instances=instances,
            metric=self._metric,
            seconds=time.monotonic() - self._begun,
        )
        return tuning.choosing(winner)

    def _side_by_side(self, winner: Candidate) -> tuple[Instances, ...]:
        """The winner in several processes at once, where throughput is the target."""
        if self._request.target != "throughput":
            return ()
        found = []
        ending = self._begun + self._request.budget
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
                        tolerance=self._request.tolerance,
                        deadline=ending,
                    )
                )
            except LaunchFailed as error:
                self._space.not_tried.append(NotTried(f"{count} processes", str(error)))
        return tuple(found)

    @property
    def _deciding(self) -> float:
        """When the run-off has to end."""
        kept = INSTANCES_SHARE if self._request.target == "throughput" else 0.0
        return self._begun + self._request.budget * (1 - kept)

    @property
    def _best(self) -> Row | None:
        measured = [row for row in self._rows if row.speedup is not None]
        return max(
            measured,
            key=lambda row: row.speedup.median,  # type: ignore[union-attr]
            default=None,
        )

    @property
    def _to_beat(self) -> tuple[float, ...]:
        measured = [by_batch(row.rounds) for row in self._rows if row.rounds]
        if not measured:
            return (1.0,) * len(self._workload.batches)
        return tuple(max(1.0, *(s.median for s in batch), 0.0) for batch in zip(*measured))

    @property
    def _measure_seconds(self) -> float:
        return min(LONGEST_MEASURE, self._request.budget * MEASURE_SHARE)

    @property
    def _memory_limit(self) -> int:
        if self._request.memory_limit is not None:
            return self._request.memory_limit
        return int(psutil.virtual_memory().available * 0.8)

    def _speedup(self, candidate: Candidate) -> Speedup:
        speedup = self._row(candidate).speedup
        assert speedup is not None
        return speedup

    def _row(self, candidate: Candidate) -> Row:
        return next(row for row in self._rows if row.candidate == candidate)

    def _tell(self, doing: str) -> None:
        self._progress(
            Snapshot(
                doing,
                tuple(self._rows),
                len(self._space.waiting),
                self._begun,
                self._request.budget,
            )
        )


def metric_fault(metric: float | None, original: float, max_drop: float) -> str:
    """What is wrong with a metric, if anything is."""
    if metric is None or metric >= original - max_drop:
        return ""
    return (
        f"the metric is {metric:.6g}, which is {original - metric:.3g} below the original's "
        f"{original:.6g} (max_drop {max_drop:g})"
    )
