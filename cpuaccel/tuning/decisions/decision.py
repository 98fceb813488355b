"""What a search comes to: the pipelines that answer, and which calls each answers."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from cpuaccel.building.builder import Builder
from cpuaccel.building.builders import make_builder
from cpuaccel.model.signature import Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline
from cpuaccel.report import Report
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Rule, Tuning
from cpuaccel.tuning.workload import Shape


@dataclass(frozen=True)
class Decision:
    """What is built in the caller's process.

    Attributes:
        pipelines: by the candidate each stands for, the one for most calls first.
        rule: which of them answers a call; None where there is one.
        threads: torch's.
    """

    pipelines: Mapping[Candidate, Pipeline]
    rule: Rule | None
    threads: int

    @classmethod
    def of(cls, tuning: Tuning) -> "Decision":
        """What a search found."""
        return cls(
            {candidate: candidate.pipeline for candidate in tuning.chosen},
            tuning.rule,
            tuning.winner.threads or tuning.threads,
        )


def assemble(
    model: torch.nn.Module,
    decision: Decision,
    *,
    strict: bool,
    tolerance: float | None,
    inplace: bool,
) -> OptimizedModel:
    """The optimized model that a decision describes; nothing is built yet. Args are ``optimize``'s.

    Raises:
        CpuaccelError: one of its pipelines can't be right here.
    """

    def builder(pipeline: Pipeline) -> Builder:
        return make_builder(
            model,
            pipeline,
            strict=strict,
            tolerance=tolerance,
            inplace=inplace,
        )

    builders = {c: builder(pipeline) for c, pipeline in decision.pipelines.items()}
    first, *others = builders.values()
    report = Report(
        " | ".join(candidate.name for candidate in builders),
        " | ".join(dict.fromkeys(candidate.precision for candidate in builders)),
        (),
    )
    return OptimizedModel(
        first,
        report,
        functools.partial(
            assemble, decision=decision, strict=strict, tolerance=tolerance, inplace=inplace
        ),
        others=others,
        choose=None if decision.rule is None else _chooser(decision.rule, builders),
    )


def _chooser(rule: Rule, builders: dict[Candidate, Builder]) -> Callable[[Inputs], Builder]:
    return lambda inputs: builders[rule.choose(Shape.of(inputs))]
