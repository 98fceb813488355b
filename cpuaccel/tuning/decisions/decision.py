"""What a search comes to: the pipelines that answer, and which calls each answers."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.model.signature import Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.plan import make_plan
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Rule, Tuning
from cpuaccel.tuning.workload import Shape
from cpuaccel.variants import Variants


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
    def from_tuning(cls, tuning: Tuning) -> "Decision":
        """What a search found."""
        return cls(
            {candidate: candidate.pipeline for candidate in tuning.chosen},
            tuning.rule,
            tuning.winner.threads or tuning.threads,
        )


def assemble(model: torch.nn.Module, decision: Decision, settings: BuildSettings) -> OptimizedModel:
    """Return the optimized model of a decision; nothing is built yet.

    Raises:
        CpuaccelError: one of its pipelines is invalid here.
    """
    plans = [make_plan(model, pipeline) for pipeline in decision.pipelines.values()]
    choose = None
    if decision.rule is not None:
        choose = functools.partial(_choose, decision.rule, tuple(decision.pipelines))
    return OptimizedModel(Variants(model, plans, settings, choose))


def _choose(rule: Rule, candidates: Sequence[Candidate], inputs: Inputs) -> int:
    return candidates.index(rule.choose(Shape.from_inputs(inputs)))
