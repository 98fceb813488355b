"""``optimize(model, "auto", ...)``: a decision found or taken up, built here, and checked again."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from cpuaccel.checks.probes import Probe
from cpuaccel.errors import CpuaccelError, LockError
from cpuaccel.model.copying import shared_copy
from cpuaccel.model.signature import Binder, Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.plugin.host import host
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import ORIGINAL
from cpuaccel.tuning.decisions.decision import Decision, assemble
from cpuaccel.tuning.decisions.fingerprint import key_of, take_fingerprint
from cpuaccel.tuning.decisions.lockfile import (
    Lock,
    cache_folder,
    exclusive,
    read_lock,
    write_lock,
)
from cpuaccel.tuning.decisions.result import Standing, Tuning
from cpuaccel.tuning.metric import Judge
from cpuaccel.tuning.progress import Progress
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.search import Search
from cpuaccel.tuning.workers.parent import ended_by_sigterm
from cpuaccel.tuning.workers.proof import Disproved, prove, references
from cpuaccel.tuning.workers.timing import measure, ratios
from cpuaccel.tuning.workload import Batches, Workload

logger = logging.getLogger("cpuaccel")

RECHECK_SECONDS = 3.0


def optimize_auto(
    model: torch.nn.Module,
    example_inputs: Batches,
    request: Request,
    *,
    progress: Progress = lambda snapshot: None,
) -> OptimizedModel:
    """Choose the pipeline that is fastest here, and build it.

    Args:
        model: the original.
        example_inputs: one batch or several.
        request: what is asked for.
        progress: is told how the search goes.

    Returns:
        The optimized model; ``.report.tuning`` tells how it was chosen. Where nothing was surely
        faster it is the original.

    Raises:
        CpuaccelError: the inputs or the lockfile can't be right; or, with ``strict``, the lockfile
            no longer fits.
    """
    workload = Workload.from_batches(model, example_inputs, request.traffic)
    work = _Auto(model, workload, request, progress)
    with ended_by_sigterm():
        return work.run()


class _Auto:
    def __init__(
        self,
        model: torch.nn.Module,
        workload: Workload,
        request: Request,
        progress: Progress,
    ) -> None:
        self._model = model
        self._workload = workload
        self._request = request
        self._progress = progress
        self._binder = Binder(model)
        self._eager = shared_copy(model)
        self._references: list[Probe] = []
        self._reference_seconds = 0.0
        self._judge: Judge | None = None
        self._print = take_fingerprint(model, workload, request, host(), plugin_host())

    def run(self) -> OptimizedModel:
        begun = time.monotonic()
        self._references = references(self._call_eager, self._workload)
        self._reference_seconds = time.monotonic() - begun
        if self._request.metric is not None:
            self._judge = Judge(self._request.metric, self._request.max_drop, self._references)
        path = self._path()
        with exclusive(path) if path else nullcontext():
            if path is not None:
                optimized = self._taken_up(path)
                if optimized is not None:
                    return optimized
            tuning = self._search()
            optimized = self._first_that_holds(tuning)
            chosen = optimized.report.tuning
            assert isinstance(chosen, Tuning)
            if path is not None:
                self._keep(path, chosen)
            return optimized

    def _path(self) -> Path | None:
        if self._request.lock is not None:
            return self._request.lock
        return cache_folder() / f"{key_of(self._print)}.toml" if self._request.cache else None

    def _taken_up(self, path: Path) -> OptimizedModel | None:
        """What an earlier decision comes to; None where there is none, or it no longer holds."""
        try:
            lock = read_lock(path)
        except LockError as error:
            if self._request.lock is not None:
                raise
            logger.warning("%s", error)
            return None
        if lock is None:
            if self._request.settings.strict and self._request.lock is not None:
                raise LockError(
                    f"strict=True was asked for with lock={str(path)!r}, but there is no such "
                    "file. Make it by tuning once without strict"
                )
            return None
        changed = lock.fingerprint.changes(self._print)
        if not changed:
            return self._rebuilt(path, lock)
        self._refuse(path, "was made for something else", changed)
        return None

    def _rebuilt(self, path: Path, lock: Lock) -> OptimizedModel | None:
        try:
            optimized, found = self._build(lock.decision)
        except (Disproved, CpuaccelError) as error:
            self._refuse(path, "no longer holds", [str(error)])
            return None
        optimized.report.tuning = dataclasses.replace(
            lock.tuning, rebuilt=found, shapes=self._workload.shapes, weights=self._workload.weights
        )
        return optimized

    def _refuse(self, path: Path, what: str, reasons: Sequence[str]) -> None:
        if self._request.settings.strict:
            lines = "".join(f"\n  - {reason}" for reason in reasons)
            raise LockError(
                f"strict=True was asked for with lock={str(path)!r}, which {what}. Tune again "
                f"without strict, or restore what has changed:{lines}"
            )
        logger.warning("%s %s, so the search is made again: %s", path, what, "; ".join(reasons))

    def _keep(self, path: Path, tuning: Tuning) -> None:
        try:
            write_lock(path, tuning, self._print)
        except LockError as error:
            if self._request.lock is not None:
                raise
            logger.warning("%s", error)

    def _search(self) -> Tuning:
        return Search(
            self._model,
            self._workload,
            self._request,
            eager=self._eager,
            host=host(),
            plugins=plugin_host(),
            references=self._references,
            reference_seconds=self._reference_seconds,
            judge=self._judge,
            progress=self._progress,
        ).run()

    def _first_that_holds(self, tuning: Tuning) -> OptimizedModel:
        """Build the winner here; where it does not hold, the next best; at last the original."""
        faults: list[str] = []
        while True:
            try:
                optimized, found = self._build(Decision.from_tuning(tuning))
            except (Disproved, CpuaccelError) as error:
                faults.append(f"{tuning.winner} did not hold in this process: {error}")
                logger.warning("%s", faults[-1])
                tuning = self._without_winner(tuning, str(error))
                continue
            optimized.report.tuning = dataclasses.replace(tuning, rebuilt=(*faults, *found))
            return optimized

    def _without_winner(self, tuning: Tuning, reason: str) -> Tuning:
        chosen = tuning.chosen
        rows = tuple(
            dataclasses.replace(row, standing=Standing.REFUSED, reason=reason)
            if row.candidate in chosen
            else row
            for row in tuning.rows
        )
        tuning = dataclasses.replace(tuning, rows=rows)
        for row in rows:
            if row.standing is Standing.MEASURED and row.speedup and row.speedup.significant:
                why = f"{row.speedup} as fast as eager; what was faster did not hold"
                return dataclasses.replace(tuning, why=why).with_winner(row.candidate)
        why = "eager is kept: nothing that was faster held in this process"
        return dataclasses.replace(tuning, why=why).with_winner(ORIGINAL)

    def _build(self, decision: Decision) -> tuple[OptimizedModel, tuple[str, ...]]:
        """Build in this process, and check answers, metric and speed again.

        Raises:
            Disproved: something is not as the search found it.
        """
        if self._request.threads is not None:
            torch.set_num_threads(decision.threads)
        settings = dataclasses.replace(self._request.settings, measure_speed=False)
        optimized = assemble(self._model, decision, settings)
        for batch in self._workload.batches:
            optimized.prepare(batch)
        if decision.pipelines.keys() == {ORIGINAL}:
            return optimized, ("the original as it is",)
        outputs, differences = prove(optimized, self._references)
        if self._judge is not None and (fault := self._judge.judge(outputs)[1]):
            raise Disproved(fault)
        del outputs
        speedup = self._speedup(optimized)
        if speedup.slower:
            raise Disproved(f"it is {speedup} as fast as eager")
        optimized.report.reset_calls()
        worst = max((d.relative for d in differences), default=0.0)
        return optimized, (
            f"{speedup} as fast as eager in this process; outputs within {worst:.2g} of the "
            f"original's on {len(self._references)} example batches",
        )

    def _speedup(self, optimized: OptimizedModel) -> Speedup:
        def calling(call: Callable[[Inputs], object]) -> list[Callable[[], object]]:
            return [functools.partial(call, batch) for batch in self._workload.batches]

        with torch.no_grad():
            rounds = measure(
                calling(self._call_eager),
                calling(lambda batch: optimized(**batch)),
                self._workload.weights,
                seconds=RECHECK_SECONDS,
                to_beat=(0.0,) * len(self._workload.batches),
            )
        return Speedup.from_ratios(ratios(rounds, self._workload.weights))

    def _call_eager(self, batch: Inputs) -> object:
        return self._binder.call(self._eager, batch)
