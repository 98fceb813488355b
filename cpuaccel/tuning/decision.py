"""What a search comes to: the pipelines that answer, and which calls each answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from cpuaccel.pipeline import Pipeline
from cpuaccel.tuning.candidates import ORIGINAL, Candidate
from cpuaccel.tuning.result import Rule, Tuning


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

    @classmethod
    def original(cls, threads: int) -> "Decision":
        """Leaving the model as it is."""
        return cls({ORIGINAL: ORIGINAL.pipeline}, None, threads)
