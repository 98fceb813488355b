"""Timing calls of pipelines in turn with eager's, with the same threads and inputs."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cpuaccel.api import optimize
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Probe
from cpuaccel.cli.bench.bench import Bench
from cpuaccel.cli.bench.memory import peak_memory
from cpuaccel.cli.bench.results import EAGER, CallRow, RowStatus, judge, merge
from cpuaccel.cli.models.cases import Case, call_all
from cpuaccel.model.output import leaves
from cpuaccel.model.signature import Inputs
from cpuaccel.pipeline import Pipeline
from cpuaccel.report import Outcome, Report, Status
from cpuaccel.timing import Ratio, interleave, percentile


@dataclass
class _Subject:
    """What is timed: a pipeline's model with its report, or eager itself."""

    name: str
    call: Callable[..., object]
    report: Report | None = None
    peak_bytes: int | None = None


@dataclass
class CallBench(Bench[CallRow]):
    """A benchmark of calls.

    Attributes:
        fastest: the result of the fastest fully applied pipeline, and its model.
    """

    fastest: tuple[CallRow, Callable[..., object]] | None = None

    def _prepare(self) -> None:
        self.progress(0, "calling the original")
        self._references = [self._probes(case) for case in self.cases]

    def _probes(self, case: Case) -> list[Probe]:
        outputs = call_all(self.model, case)
        return [
            Probe(str(case), batch, output, leaves(output))
            for batch, output in zip(case.batches, outputs)
        ]

    def _run_dtype(self, dtype: str) -> None:
        subjects = [
            _Subject(EAGER, self.model)
            if dtype == "float32"
            else self._optimize(EAGER, Pipeline(()), dtype)
        ]
        for name, pipeline in self.pipelines.items():
            self._advance(0, f"{dtype}: optimizing with {name}")
            subjects.append(self._optimize(name, pipeline, dtype))
            self.done += 1
        for case, probes in zip(self.cases, self._references):
            measured = self._run_case(dtype, case, probes, subjects)
            self.results += measured
            for result, subject in zip(measured, subjects):
                self._keep_fastest(result, subject)

    def _optimize(self, name: str, pipeline: Pipeline, dtype: str) -> _Subject:
        example = self.cases[0].batches[0]
        with peak_memory() as peak:
            fast = optimize(self.model, pipeline=pipeline, dtype=dtype, example_inputs=example)
        return _Subject(name, fast, fast.report, peak.bytes)

    def _run_case(
        self, dtype: str, case: Case, probes: list[Probe], subjects: list[_Subject]
    ) -> list[CallRow]:
        for subject in subjects:
            if subject.report is not None:
                subject.report.reset_calls()
        errors = [self._error(subject, case, probes) for subject in subjects]
        calls = {
            str(number): _pass_over(subject.call, case.batches)
            for number, subject in enumerate(subjects)
        }
        share = 1 / (self.rounds * len(calls))
        start = self.done

        def advance() -> None:
            self._advance(share, f"{dtype}: timing {case}")

        with torch.no_grad():
            by_number = interleave(
                calls, rounds=self.rounds, seconds=self.seconds, progress=advance
            )
        times = list(by_number.values())
        self.done = start + 1
        results = []
        for subject, seconds, error in zip(subjects, times, errors):
            status, notes, outcomes = _status(subject)
            variants = subject.report.variants if subject.report is not None else []
            results.append(
                replace(
                    self._row(dtype, subject.name, case, status, notes),
                    rounds=len(seconds),
                    median_ms=statistics.median(seconds) * 1000,
                    p95_ms=percentile(seconds, 95) * 1000,
                    ratio=None if subject is subjects[0] else Ratio.from_times(times[0], seconds),
                    error=error,
                    optimize_seconds=sum(variant.seconds for variant in variants),
                    peak_bytes=subject.peak_bytes,
                    outcomes=outcomes,
                )
            )
        return results

    def _error(self, subject: _Subject, case: Case, probes: list[Probe]) -> float:
        differences = [
            difference.relative
            for probe, output in zip(probes, call_all(subject.call, case))
            for difference in compare(probe, output, self.model)
        ]
        return max(differences, default=0.0)

    def _keep_fastest(self, result: CallRow, subject: _Subject) -> None:
        if result.status is RowStatus.APPLIED and result.median_ms is not None:
            best = self.fastest[0].median_ms if self.fastest else None
            if best is None or result.median_ms < best:
                self.fastest = (result, subject.call)

    def _row(
        self, dtype: str, pipeline: str, case: Case, status: RowStatus, notes: tuple[str, ...]
    ) -> CallRow:
        return CallRow(
            dtype=dtype,
            pipeline=pipeline,
            case=str(case),
            batch_size=case.batch_size,
            seq_len=case.seq_len,
            batches=len(case.batches),
            status=status,
            notes=notes,
        )


def _pass_over(call: Callable[..., object], batches: list[Inputs]) -> Callable[[], None]:
    def run() -> None:
        for batch in batches:
            call(**batch)

    return run


def _status(subject: _Subject) -> tuple[RowStatus, tuple[str, ...], tuple[Outcome, ...]]:
    report = subject.report
    if report is None:
        return RowStatus.EAGER, (), ()
    outcomes = merge(report.variants)
    if subject.name == EAGER and all(o.status is Status.APPLIED for o in outcomes):
        return RowStatus.EAGER, (), outcomes
    return (*judge(outcomes, report.by_original), outcomes)
