"""The decision of a search: the chosen pipelines, and the dispatch of calls to them."""

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
    """The pipelines to build, by candidate; with two, ``rule`` dispatches calls to them."""

    pipelines: Mapping[Candidate, Pipeline]
    rule: Rule | None
    threads: int

    @classmethod
    def from_tuning(cls, tuning: Tuning) -> "Decision":
        """Return the decision of a search."""
        return cls(
            {candidate: candidate.pipeline for candidate in tuning.chosen},
            tuning.rule,
            tuning.winner.threads or tuning.threads,
        )


def assemble(model: torch.nn.Module, decision: Decision, settings: BuildSettings) -> OptimizedModel:
    """Return the optimized model of a decision; nothing is built yet."""
    plans = [make_plan(model, pipeline) for pipeline in decision.pipelines.values()]
    choose = None
    if decision.rule is not None:
        choose = functools.partial(_choose, decision.rule, tuple(decision.pipelines))
    return OptimizedModel(Variants(model, plans, settings, choose))


def _choose(rule: Rule, candidates: Sequence[Candidate], inputs: Inputs) -> int:
    return candidates.index(rule.choose(Shape.from_inputs(inputs)))
