"""``optimize(model, "auto")``: a decision, of a lock file or a search, is built and verified."""

import dataclasses
import logging
from contextlib import nullcontext
from pathlib import Path

import torch

from cpuaccel.errors import CpuaccelError, LockError
from cpuaccel.optimized import OptimizedModel
from cpuaccel.plugin.cache_folder import cache_folder
from cpuaccel.plugin.host import host
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.report import Fallback
from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import ORIGINAL
from cpuaccel.tuning.decisions.decision import Decision, assemble
from cpuaccel.tuning.decisions.fingerprint import key_of, take_fingerprint
from cpuaccel.tuning.decisions.lockfile import exclusive, read_lock, write_lock
from cpuaccel.tuning.decisions.result import CandidateStatus, Tuning
from cpuaccel.tuning.progress import Progress
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.search import Search
from cpuaccel.tuning.workers.original import Original
from cpuaccel.tuning.workers.parent import ended_by_sigterm
from cpuaccel.tuning.workers.proof import Judge, ProofFailed
from cpuaccel.tuning.workers.timing import measure, on_each, ratios
from cpuaccel.tuning.workload import Batches, Workload

logger = logging.getLogger("cpuaccel")

RECHECK_SECONDS = 3.0


def optimize_auto(
    model: torch.nn.Module,
    example_inputs: Batches,
    request: Request,
    progress: Progress,
) -> OptimizedModel:
    """Choose the fastest pipeline on this machine and build it; the original if none is faster."""
    workload = Workload.from_batches(model, example_inputs, request.traffic)
    with ended_by_sigterm():
        return _Auto(Original(model, workload, request.use), request).run(progress)


class _Auto:
    def __init__(self, original: Original, request: Request) -> None:
        self._original = original
        self._workload = original.workload
        self._request = request
        self._use = original.use
        self._fingerprint = take_fingerprint(
            original.model, original.workload, request, host(), plugin_host()
        )
        self._judge: Judge | None = None
        if request.metric is not None:
            self._judge = Judge(request.metric, request.max_drop, original.probes)

    def run(self, progress: Progress) -> OptimizedModel:
        path = self._request.lock
        if path is None and self._request.cache:
            path = cache_folder("tuning") / f"{key_of(self._fingerprint, self._request)}.toml"
        with exclusive(path) if path else nullcontext():
            optimized = self._from_lock(path) if path else None
            if optimized is None:
                search = Search(
                    self._original, self._judge, self._request, host(), plugin_host(), progress
                )
                optimized, tuning = self._build_best(search.run())
                if path is not None and tuning.worth_keeping:
                    self._write_lock(path, tuning)
                elif path is not None:
                    logger.warning(
                        "the budget ended before any candidate was measured, so nothing is kept "
                        "and the next call searches again. Pass a longer budget="
                    )
            return optimized

    def _from_lock(self, path: Path) -> OptimizedModel | None:
        """Build an earlier decision; None if there is none, or it does not fit."""
        strict = self._request.settings.strict or self._request.locked
        try:
            lock = read_lock(path)
        except LockError as error:
            if self._request.lock is not None:
                raise
            logger.warning("%s", error)
            return None
        if lock is None:
            if strict and self._request.lock is not None:
                raise LockError(
                    f"strict=True needs the lock file {path}, which does not exist. Tune once "
                    "without strict to write it"
                )
            return None
        reasons = lock.fingerprint.changes(self._fingerprint)
        unfinished = lock.tuning.unfinished_budget
        if not reasons and not strict and unfinished and self._repeats_search(path, unfinished):
            return None
        if not reasons:
            try:
                optimized, results = self._build(lock.decision)
            except (ProofFailed, CpuaccelError) as error:
                reasons = [str(error)]
            else:
                optimized.report.tuning = dataclasses.replace(
                    lock.tuning,
                    rebuilt=results,
                    arguments=self._request.code,
                    shapes=self._workload.shapes,
                    weights=self._workload.weights,
                )
                return optimized
        if strict:
            lines = "".join(f"\n  - {reason}" for reason in reasons)
            how = "" if self._request.locked else " without strict"
            raise LockError(
                f"the lock file {path} does not fit. Tune again{how}, or restore what changed:"
                f"{lines}"
            )
        logger.warning("%s does not fit, searching again: %s", path, "; ".join(reasons))
        return None

    def _repeats_search(self, path: Path, unfinished_budget: float) -> bool:
        """Whether a longer budget was passed than that of the unfinished search."""
        decision = f"{path} is from an unfinished search of {unfinished_budget:g} s"
        longer = self._request.exceeds(unfinished_budget)
        if longer:
            logger.warning("%s, searching again for %g s", decision, self._request.budget)
        else:
            logger.info("%s: a longer budget= searches again", decision)
        return longer

    def _write_lock(self, path: Path, tuning: Tuning) -> None:
        try:
            write_lock(path, tuning, self._fingerprint)
        except LockError as error:
            if self._request.lock is not None:
                raise
            logger.warning("%s", error)

    def _build_best(self, tuning: Tuning) -> tuple[OptimizedModel, Tuning]:
        """Build the winner; fall back to the runner-up, finally to eager."""
        failures: list[str] = []
        while True:
            try:
                optimized, results = self._build(Decision.from_tuning(tuning))
            except (ProofFailed, CpuaccelError) as error:
                failures.append(f"{tuning.winner} failed in this process: {error}")
                logger.warning("%s", failures[-1])
                tuning = self._without_winner(tuning, str(error))
                continue
            tuning = dataclasses.replace(tuning, rebuilt=(*failures, *results))
            optimized.report.tuning = tuning
            return optimized, tuning

    def _without_winner(self, tuning: Tuning, reason: str) -> Tuning:
        chosen = tuning.chosen
        rows = tuple(
            dataclasses.replace(row, status=CandidateStatus.REFUSED, reason=reason)
            if row.candidate in chosen
            else row
            for row in tuning.rows
        )
        tuning = dataclasses.replace(tuning, rows=rows)
        for row in rows:
            if row.status is CandidateStatus.MEASURED and row.speedup and row.speedup.significant:
                baseline = row.candidate.baseline(tuning.own_precision)
                why = f"{row.speedup} as fast as {baseline}"
                why += "; faster candidates failed in this process"
                return dataclasses.replace(tuning, why=why).with_winner(row.candidate)
        why = "all faster candidates failed in this process"
        return dataclasses.replace(tuning, why=why).with_winner(ORIGINAL)

    def _build(self, decision: Decision) -> tuple[OptimizedModel, tuple[str, ...]]:
        """Build in this process, and verify outputs, metric and speed."""
        if self._request.threads is not None:
            torch.set_num_threads(decision.threads)
        settings = dataclasses.replace(self._request.settings, measure_speed=False)
        optimized = assemble(self._original.model, decision, settings)
        prepared = [self._use.prepare(optimized, batch) for batch in self._workload.batches]
        if decision.pipelines.keys() == {ORIGINAL}:
            reasons = {p.reason for p in prepared if isinstance(p, Fallback)}
            return optimized, ("; ".join(["the original model", *sorted(reasons)]),)
        proven = self._use.prove(optimized, self._original.probes)
        if self._judge is not None:
            verdict = self._judge.verdict(self._judge.measure(proven.outputs))
            if not verdict:
                raise ProofFailed(verdict.reason)
        worst = max((d.relative for d in proven.differences), default=0.0)
        del proven
        speedup = self._speedup(optimized)
        if speedup.slower:
            raise ProofFailed(f"it is slower than the original ({speedup})")
        optimized.report.reset_calls()
        return optimized, (
            f"{speedup} as fast as the original in this process; outputs within {worst:.2g} of "
            f"its own on {len(self._original.probes)} example batches",
        )

    def _speedup(self, optimized: OptimizedModel) -> Speedup:
        batches, weights = self._workload.batches, self._workload.weights
        with torch.no_grad():
            rounds = measure(
                on_each(self._use.original(self._original.reference), batches),
                on_each(self._use.optimized(optimized), batches),
                weights,
                seconds=RECHECK_SECONDS,
                to_beat=(0.0,) * len(weights),
            )
        return Speedup.from_ratios(ratios(rounds, weights))
