"""Candidates of a search, and what it does not try."""

from dataclasses import dataclass

from cpuaccel.model.precision import dtype_of
from cpuaccel.pipeline import Pipeline, Step

EAGER = "eager"
OWN = "its own precision"


@dataclass(frozen=True)
class Candidate:
    """One pipeline in one precision, without steps for eager."""

    steps: tuple[str, ...]
    precision: str
    threads: int | None = None  # None for the search's number

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline, with default options."""
        dtype = None if self.precision == OWN else dtype_of(self.precision)
        return Pipeline(tuple(map(Step, self.steps)), dtype, "auto")

    @property
    def name(self) -> str:
        """The names of the steps, or ``eager``."""
        return ",".join(self.steps) or EAGER

    @property
    def subject(self) -> str:
        """The candidate as the subject of a sentence."""
        casts = not self.steps and self.precision != OWN
        return f"the original cast to {self.precision}" if casts else str(self)

    def baseline(self, own_precision: str) -> str:
        """What it was compared with, after "as fast as": for a cast, the model's own precision."""
        return EAGER if self.steps else f"in {own_precision}"

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.name} in {self.precision}{threads}"


ORIGINAL = Candidate((), OWN)
"""The model unchanged."""


@dataclass(frozen=True)
class NotTried:
    """A backend, a precision or a candidate that a search did not try."""

    name: str
    reason: str
    for_time: bool = False
    """Whether a longer budget would have tried it."""
