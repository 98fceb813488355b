"""Candidates of a search, and what it does not try."""

from dataclasses import dataclass

from cpuaccel.model.precision import dtype_of
from cpuaccel.pipeline import Pipeline, Step

EAGER = "eager"
OWN = "its own precision"


@dataclass(frozen=True)
class Candidate:
    """One pipeline in one precision.

    Attributes:
        steps: names of the backends, in order; empty for eager.
        precision: ``float32``, ``bfloat16``, or ``OWN`` for the original.
        threads: torch's threads, None for the search's number.
    """

    steps: tuple[str, ...]
    precision: str
    threads: int | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline, with default options."""
        dtype = None if self.precision == OWN else dtype_of(self.precision)
        return Pipeline(tuple(map(Step, self.steps)), dtype, "auto")

    @property
    def name(self) -> str:
        """The names of the steps, or ``eager``."""
        return ",".join(self.steps) or EAGER

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.name} in {self.precision}{threads}"


ORIGINAL = Candidate((), OWN)
"""The model unchanged."""


@dataclass(frozen=True)
class NotTried:
    """What a search did not try.

    Attributes:
        name: a backend, a precision or a candidate.
        reason: why, and the remedy if there is one.
    """

    name: str
    reason: str
