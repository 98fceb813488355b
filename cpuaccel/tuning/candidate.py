"""One thing to try, and one that was not."""

from dataclasses import dataclass

from cpuaccel.model.precision import dtype_of
from cpuaccel.pipeline import Pipeline, Step

EAGER = "eager"
OWN = "its own precision"


@dataclass(frozen=True)
class Candidate:
    """One pipeline in one precision.

    Attributes:
        steps: names of the backends, in order; none for eager.
        precision: ``float32``, ``bfloat16``, or ``OWN`` for the original as it is.
        threads: torch's threads, None for the search's own.
    """

    steps: tuple[str, ...]
    precision: str
    threads: int | None = None

    @property
    def pipeline(self) -> Pipeline:
        """What ``optimize`` takes."""
        dtype = None if self.precision == OWN else dtype_of(self.precision)
        return Pipeline(tuple(map(Step, self.steps)), dtype, "auto")

    @property
    def name(self) -> str:
        """The steps, or ``eager``."""
        return ",".join(self.steps) or EAGER

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.name} in {self.precision}{threads}"


ORIGINAL = Candidate((), OWN)
"""Leaving the model as it is."""


@dataclass(frozen=True)
class NotTried:
    """What was left out of a search.

    Attributes:
        name: a backend or a candidate.
        reason: why, and what to do about it where something can be done.
    """

    name: str
    reason: str
