"""The result of a search."""

import enum
import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from cpuaccel.report import Difference
from cpuaccel.timing import Speedup, format_number
from cpuaccel.tuning.candidate import OWN, Candidate, NotTried
from cpuaccel.tuning.request import Target
from cpuaccel.tuning.workers.timing import Round
from cpuaccel.tuning.workload import Shape

Axis = Literal["length", "padding", "rows"]
"""A property of a call's shape by which calls are dispatched."""


class CandidateStatus(enum.StrEnum):
    """The status of a candidate."""

    CHOSEN = "chosen"
    MEASURED = "measured"
    REFUSED = "refused"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one candidate."""

    candidate: Candidate
    status: CandidateStatus
    reason: str = ""  # why it was not measured
    speedup: Speedup | None = None  # over eager, timed in turn in the candidate's process
    rounds: tuple[Round, ...] = field(default=(), repr=False)  # seconds
    weights: tuple[float, ...] = field(default=(), repr=False)  # of the batches in a round
    differences: tuple[Difference, ...] = ()
    evidence: tuple[str, ...] = ()
    metric: float | None = None
    build_seconds: float = 0.0  # with the verification
    peak_bytes: int = 0  # of its processes, including the original
    tried_seconds: float = 0.0
    runoff: Speedup | None = None  # relative to the winner

    @property
    def error(self) -> float | None:
        """Largest difference from the original, relative to the output's magnitude."""
        return max((d.relative for d in self.differences), default=None)

    def errors(self) -> dict[str, float]:
        """Return the largest relative difference of each output."""
        worst: dict[str, float] = {}
        for difference in self.differences:
            worst[difference.output] = max(difference.relative, worst.get(difference.output, 0.0))
        return worst

    @property
    def seconds(self) -> list[float]:
        """The candidate's seconds for an average call, by round."""
        return [sum(w * c for w, (_, c) in zip(self.weights, round_)) for round_ in self.rounds]

    @property
    def eager_seconds(self) -> list[float]:
        """Eager's seconds for an average call in the same process, by round."""
        return [sum(w * e for w, (e, _) in zip(self.weights, round_)) for round_ in self.rounds]

    @property
    def median_ms(self) -> float | None:
        """The candidate's milliseconds for an average call; None if it was not timed."""
        return statistics.median(self.seconds) * 1000 if self.rounds else None

    @property
    def eager_ms(self) -> float | None:
        """Eager's milliseconds for an average call; None if the candidate was not timed."""
        return statistics.median(self.eager_seconds) * 1000 if self.rounds else None

    @property
    def break_even(self) -> float | None:
        """The number of calls after which the build pays off; None if it never does."""
        if self.median_ms is None or self.eager_ms is None or self.eager_ms <= self.median_ms:
            return None
        return self.build_seconds * 1000 / (self.eager_ms - self.median_ms)

    def to_dict(self) -> dict[str, object]:
        """Return data that JSON can represent."""
        data = asdict(self)
        del data["differences"], data["weights"]
        for speedup in (data["speedup"], data["runoff"]):
            if speedup is not None:
                speedup["rounds"] = speedup.pop("pairs")
        return {
            "pipeline": self.candidate.name,
            **data.pop("candidate"),
            **data,
            "median_ms": self.median_ms,
            "errors": self.errors(),
            "break_even_calls": self.break_even,
        }


@dataclass(frozen=True)
class Instances:
    """The total throughput of several processes, each pinned to its cores."""

    count: int
    threads: int
    rows_per_second: float

    @property
    def call(self) -> str:
        """What runs a saved model in the same way."""
        return f"cpuaccel.ProcessPool(folder, processes={self.count}, threads={self.threads})"

    def __str__(self) -> str:
        return (
            f"{self.count} processes with {self.threads} threads: "
            f"{format_number(self.rows_per_second)} rows per second in total"
        )


@dataclass(frozen=True)
class Rule:
    """The dispatch of calls to two candidates: ``low`` up to a bound, ``high`` above it."""

    axis: Axis
    bound: float
    low: Candidate
    high: Candidate
    gain: float  # speedup over the best single candidate

    def choose(self, shape: Shape) -> Candidate:
        """Return the candidate for calls of this shape."""
        return self.low if getattr(shape, self.axis) <= self.bound else self.high

    def __str__(self) -> str:
        bound = f"{self.bound:.0%}" if self.axis == "padding" else f"{self.bound:g}"
        return f"up to {self.axis} {bound}: {self.low}; above: {self.high}"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The result of a search."""

    target: Target
    winner: Candidate  # eager if nothing is significantly faster
    why: str
    rule: Rule | None = None
    rows: tuple[Row, ...] = ()  # the best first
    not_tried: tuple[NotTried, ...] = ()
    shapes: tuple[Shape, ...] = ()
    weights: tuple[float, ...] = ()  # share of each batch in all calls
    threads: int = 1  # for candidates without a number of their own
    own_precision: str = OWN  # of the model
    arguments: str = ""  # of ``optimize``, without defaults, as code
    instances: tuple[Instances, ...] = ()
    metric: float | None = None  # of the original's outputs
    seconds: float = 0.0
    source: str = "search"  # or the path of the lock file
    unfinished_budget: float | None = None  # seconds, where they left candidates over
    rebuilt: tuple[str, ...] = ()  # results of the build in the caller's process

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """The candidates that are used."""
        if self.rule is None:
            return (self.winner,)
        return tuple(dict.fromkeys((self.rule.low, self.rule.high)))

    @property
    def summary(self) -> str:
        """The winner and why."""
        subject = self.winner.subject
        verb = ":" if subject == str(self.winner) else " is"
        return f"{subject}{verb} {self.why}"

    @property
    def best_instances(self) -> Instances | None:
        """The split of the cores with the highest throughput, where that was measured."""
        return max(self.instances, key=lambda one: one.rows_per_second, default=None)

    @property
    def worth_keeping(self) -> bool:
        """Whether something was measured, or time was not what was short."""
        return self.unfinished_budget is None or any(row.rounds for row in self.rows)

    @property
    def more_time(self) -> str:
        """What a longer budget would bring, without a full stop; empty if nothing."""
        untried = sum(one.for_time for one in self.not_tried)
        late = sum(row.status is CandidateStatus.TIMED_OUT for row in self.rows)
        parts = [f"try {untried} more"] if untried else []
        parts += [f"finish {late} that timed out"] if late else []
        if parts:
            return f"a longer budget may {' and '.join(parts)}"
        if self.unfinished_budget is None:
            return ""
        return (
            f"its search of {self.unfinished_budget:g} s left candidates untried, which a longer "
            "budget may try"
        )

    def with_winner(self, winner: Candidate) -> "Tuning":
        """Return a copy with another winner, and the status of the rows adapted."""
        tuning = replace(self, winner=winner, rule=self.rule if winner == self.winner else None)

        def status(row: Row) -> CandidateStatus:
            if row.candidate in tuning.chosen:
                return CandidateStatus.CHOSEN
            chosen_before = row.status is CandidateStatus.CHOSEN
            return CandidateStatus.MEASURED if chosen_before else row.status

        return replace(tuning, rows=tuple(replace(row, status=status(row)) for row in self.rows))

    def row(self, candidate: Candidate) -> Row | None:
        """Return the result of a candidate, if it was tried."""
        return next((row for row in self.rows if row.candidate == candidate), None)

    def _counts(self) -> str:
        """Count the candidates by their result."""
        chosen, measured = CandidateStatus.CHOSEN, CandidateStatus.MEASURED
        counts = Counter(measured if r.status is chosen else r.status for r in self.rows)
        by_result = ", ".join(f"{count} {status}" for status, count in counts.items())
        line = (
            f"{len(self.rows)} candidates in {self.seconds:.0f} s: {by_result}; "
            f"{len(self.not_tried)} not tried"
        )
        return f"{line}; {self.more_time}" if self.more_time else line

    def __str__(self) -> str:
        lines = [f"tuning    {self.summary}"]
        if self.rule is not None:
            lines.append(f"dispatch  {self.rule}")
        lines += [f"rebuilt   {line}" for line in self.rebuilt]
        if self.source != "search":
            unfinished = f"; {self.more_time}" if self.more_time else ""
            lines.append(f"source    read from {self.source}, without a search{unfinished}")
        if self.rows:
            lines.append(f"search    {self._counts()}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return data that JSON can represent."""
        data = asdict(replace(self, rows=()))
        shapes, weights = data.pop("shapes"), data.pop("weights")
        batches = [{**shape, "weight": weight} for shape, weight in zip(shapes, weights)]
        rows = [row.to_dict() for row in self.rows]
        return {**data, "batches": batches, "rows": rows}
