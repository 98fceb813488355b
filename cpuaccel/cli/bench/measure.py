"""Timing pipelines in turn with eager, with the same threads and inputs."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cpuaccel.api import optimize
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Probe
from cpuaccel.cli.bench.memory import peak_memory
from cpuaccel.cli.bench.results import EAGER, Result, RowStatus, judge, merge
from cpuaccel.cli.models.cases import Case, call_all
from cpuaccel.model.output import leaves
from cpuaccel.model.signature import Inputs
from cpuaccel.pipeline import Pipeline
from cpuaccel.plugin.host import Host
from cpuaccel.report import CallKey, Outcome, Report, Status
from cpuaccel.timing import Ratio, interleave, percentile

DEFAULT_ROUNDS = 40
DEFAULT_SECONDS = 12.0
"""For one case in one precision, over all pipelines."""


@dataclass
class _Subject:
    """What is timed: a pipeline's model with its report, or eager itself."""

    name: str
    call: Callable[..., object]
    report: Report | None = None
    peak_bytes: int | None = None


@dataclass
class Bench:
    """One benchmark of a model in float32 and eval mode.

    Attributes:
        progress: called with the share that is done, from 0 to 1, and the activity.
        seconds: no round starts after this long, in one case and precision.
        fastest: the result of the fastest fully applied pipeline, and its model.
    """

    model: torch.nn.Module
    pipelines: Mapping[str, Pipeline]
    cases: Sequence[Case]
    dtypes: Sequence[str]
    host: Host
    threads: int
    progress: Callable[[float, str], None]
    rounds: int
    seconds: float
    results: list[Result] = field(default_factory=list)
    fastest: tuple[Result, Callable[..., object]] | None = None
    done: float = 0.0

    def run(self) -> None:
        """Measure all pipelines."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            self.progress(0, "calling the original")
            references = [self._probes(case) for case in self.cases]
            for dtype in self.dtypes:
                self._run_dtype(dtype, references)
            self.progress(1, "done")
        finally:
            torch.set_num_threads(threads)

    def _probes(self, case: Case) -> list[Probe]:
        outputs = call_all(self.model, case)
        return [
            Probe(str(case), batch, output, leaves(output))
            for batch, output in zip(case.batches, outputs)
        ]

    def _run_dtype(self, dtype: str, references: list[list[Probe]]) -> None:
        verdict = self.host.bf16()
        if dtype == "bfloat16" and not verdict:
            for case in self.cases:
                for name in (EAGER, *self.pipelines):
                    result = _result(dtype, name, case, RowStatus.REFUSED)
                    self.results.append(replace(result, notes=(str(verdict),)))
            self.done += len(self.pipelines) + len(self.cases)
            return
        subjects = [
            _Subject(EAGER, self.model)
            if dtype == "float32"
            else self._optimize(EAGER, Pipeline(()), dtype)
        ]
        for name, pipeline in self.pipelines.items():
            self._advance(0, f"{dtype}: optimizing with {name}")
            subjects.append(self._optimize(name, pipeline, dtype))
            self.done += 1
        for case, probes in zip(self.cases, references):
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
    ) -> list[Result]:
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
                    _result(dtype, subject.name, case, status),
                    notes=notes,
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

    def _keep_fastest(self, result: Result, subject: _Subject) -> None:
        if result.status is RowStatus.APPLIED and result.median_ms is not None:
            best = self.fastest[0].median_ms if self.fastest else None
            if best is None or result.median_ms < best:
                self.fastest = (result, subject.call)

    def _advance(self, units: float, doing: str) -> None:
        self.done += units
        total = len(self.dtypes) * (len(self.pipelines) + len(self.cases))
        self.progress(min(self.done / total, 1), doing)


def _result(dtype: str, pipeline: str, case: Case, status: RowStatus) -> Result:
    return Result(
        dtype=dtype,
        pipeline=pipeline,
        case=str(case),
        batch_size=case.batch_size,
        seq_len=case.seq_len,
        batches=len(case.batches),
        status=status,
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
    fallbacks = {
        report.fallbacks.get(key, key): count
        for key, count in report.calls.items()
        if key != CallKey.OPTIMIZED
    }
    return (*judge(outcomes, fallbacks), outcomes)
