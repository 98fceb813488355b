"""Timing ``generate`` of pipelines in turn with the original's, token by token."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch

from cpuaccel.api import optimize
from cpuaccel.cli.bench.bench import Bench
from cpuaccel.cli.bench.memory import peak_memory
from cpuaccel.cli.bench.results import EAGER, GenerateRow, RowStatus, judge
from cpuaccel.cli.models.cases import Case
from cpuaccel.errors import ModelError, describe_error
from cpuaccel.generation.meter import read_bandwidth
from cpuaccel.model.copying import cast_copy
from cpuaccel.model.precision import dtype_of
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline
from cpuaccel.timing import Ratio, interleave

if TYPE_CHECKING:
    from cpuaccel.generation.build import Generation

Generate = Callable[..., object]


@dataclass
class _Subject:
    """What is timed: the original, or an optimized model."""

    name: str
    model: torch.nn.Module
    build_seconds: float = 0.0
    peak_bytes: int | None = None

    @property
    def generation(self) -> "Generation | None":
        """What was built for ``generate``."""
        if not isinstance(self.model, OptimizedModel):
            return None
        return cast("Generation | None", self.model.report.generation)


class Clock:
    """A streamer that notes when the prompt, the first and the last token come.

    Attributes:
        call: seconds of the whole call, once it has ended.
    """

    def __init__(self) -> None:
        self.call = 0.0
        self.times: list[float] = []
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """Note that the call has ended."""
        self.call = time.perf_counter() - self._begun

    def put(self, value: object) -> None:
        """Note the time of the prompt, or of a token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Do nothing: the last token has come."""

    @property
    def first_token(self) -> float:
        """Seconds from the call to the first token."""
        return self.times[1] - self._begun

    @property
    def rest(self) -> float:
        """Seconds from the first token to the last one."""
        return self.times[-1] - self.times[1]


@dataclass
class GenerateBench(Bench[GenerateRow]):
    """A benchmark of ``generate`` of a language model or an encoder-decoder.

    Attributes:
        tokens: new tokens of each row.
        num_beams: beams of the search; 1 is greedy.
    """

    tokens: int = 1
    num_beams: int = 1

    def _run_dtype(self, dtype: str) -> None:
        eager = self.model if dtype == "float32" else cast_copy(self.model, torch.bfloat16)
        subjects = [_Subject(EAGER, eager)]
        for name, pipeline in self.pipelines.items():
            self._advance(0, f"{dtype}: optimizing with {name}")
            subjects.append(self._build(name, replace(pipeline, dtype=dtype_of(dtype))))
            self._advance(1, f"{dtype}: optimizing with {name}")
        for case in self.cases:
            self.results += self._run_case(dtype, case, subjects)

    def _build(self, name: str, pipeline: Pipeline) -> _Subject:
        with peak_memory() as peak:
            begun = time.perf_counter()
            optimized = optimize(self.model, pipeline=pipeline)
            # The first generate builds; eager's own duration for one token is little beside that.
            _generate(optimized, self.cases[0], 1)
            seconds = time.perf_counter() - begun
        return _Subject(name, optimized, seconds, peak.bytes)

    def _run_case(self, dtype: str, case: Case, subjects: list[_Subject]) -> list[GenerateRow]:
        clocks: list[list[Clock]] = [[] for _ in subjects]
        bandwidths: list[float] = []  # it differs from minute to minute on shared machines

        def call(number: int) -> Callable[[], None]:
            return lambda: clocks[number].append(
                _generate(subjects[number].model, case, self.tokens, self.num_beams)
            )

        for subject in subjects:
            _generate(subject.model, case, min(self.tokens, 2), self.num_beams)  # the warm-up
            _forget(subject)
        calls = {str(number): call(number) for number in range(len(subjects))}
        calls["memory"] = lambda: bandwidths.append(read_bandwidth())
        start, share = self.done, 1 / (self.rounds * len(calls))
        interleave(
            calls,
            rounds=self.rounds,
            seconds=self.seconds,
            warmup=0,
            progress=lambda: self._advance(share, f"{dtype}: timing {case}"),
        )
        self.done = start + 1
        return [
            self._summarize(dtype, case, subject, clocks[0], own, statistics.median(bandwidths))
            for subject, own in zip(subjects, clocks, strict=True)
        ]

    def _summarize(
        self,
        dtype: str,
        case: Case,
        subject: _Subject,
        eager: list[Clock],
        clocks: list[Clock],
        bandwidth: float,
    ) -> GenerateRow:
        status, notes = _status(subject)
        calls = [c.call for c in clocks]
        call = statistics.median(calls)
        paired = subject.name != EAGER
        result = replace(
            self._row(dtype, subject.name, case, status, notes),
            rounds=len(clocks),
            call_ms=call * 1000,
            call_ratio=Ratio.from_times([c.call for c in eager], calls) if paired else None,
            real_time_factor=case.audio_seconds and call / (case.batch_size * case.audio_seconds),
            optimize_seconds=subject.build_seconds,
            peak_bytes=subject.peak_bytes,
        )
        if self.num_beams > 1:  # whose tokens are known at the end only
            new = case.batch_size * self.tokens
            result = replace(result, tokens_per_second=new / call, ratio=result.call_ratio)
        else:
            result = self._by_token(result, case, eager, clocks)
        generation = subject.generation
        if generation is None or generation.closeness is None:
            return result
        rate = result.tokens_per_second if self.num_beams == 1 else None
        read = generation.meter.bytes_per_token
        return replace(
            result,
            megabytes_per_token=read / 1e6 if rate else None,
            share_of_bandwidth=rate * read / bandwidth if rate else None,
            error=max(d.relative for d in generation.closeness.differences),
            outcomes=(generation.outcome,),
        )

    def _by_token(
        self, row: GenerateRow, case: Case, eager: list[Clock], clocks: list[Clock]
    ) -> GenerateRow:
        """Add the times of the first token and of those after it."""
        first, rest = [c.first_token for c in clocks], [c.rest for c in clocks]
        row = replace(row, first_token_ms=statistics.median(first) * 1000)
        if eager is not clocks:
            ratio = Ratio.from_times([c.first_token for c in eager], first)
            row = replace(row, first_token_ratio=ratio)
        if self.tokens == 1:
            return row
        rate = case.batch_size * (self.tokens - 1) / statistics.median(rest)
        ratio = Ratio.from_times([c.rest for c in eager], rest)
        return replace(row, tokens_per_second=rate, ratio=None if eager is clocks else ratio)

    def _row(
        self, dtype: str, pipeline: str, case: Case, status: RowStatus, notes: tuple[str, ...]
    ) -> GenerateRow:
        return GenerateRow(
            dtype=dtype,
            pipeline=pipeline,
            case=str(case),
            batch_size=case.batch_size,
            prompt_len=case.seq_len,
            num_beams=self.num_beams,
            status=status,
            notes=notes,
        )


def _generate(model: torch.nn.Module, case: Case, tokens: int, num_beams: int = 1) -> Clock:
    """Generate without sampling, always so many tokens."""
    clock = Clock()
    generate = cast(Generate, model.generate)
    try:
        generate(
            **case.batches[0],
            do_sample=False,
            num_beams=num_beams,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            **({"streamer": clock} if num_beams == 1 else {}),
        )
        clock.stop()
    except Exception as error:  # models raise any type on prompts that they don't accept
        raise ModelError(
            f"generating with {type(model).__name__} from {case} (batch x prompt) raised "
            f"{describe_error(error)}. Choose a shorter --prompt-len or a lower --generate"
        ) from error
    return clock


def _forget(subject: _Subject) -> None:
    """Count calls and bytes from here on."""
    if isinstance(subject.model, OptimizedModel):
        subject.model.report.reset_calls()
    if subject.generation is not None:
        subject.generation.meter.clear()


def _status(subject: _Subject) -> tuple[RowStatus, tuple[str, ...]]:
    if not isinstance(subject.model, OptimizedModel):
        return RowStatus.EAGER, ()
    report = subject.model.report
    if subject.generation is None:
        return RowStatus.NOT_APPLIED, tuple(report.by_original)
    return judge((subject.generation.outcome,), report.by_original)
