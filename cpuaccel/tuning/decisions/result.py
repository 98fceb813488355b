"""What a search found."""

import enum
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from cpuaccel.report import Difference
from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import Candidate, NotTried
from cpuaccel.tuning.workers.timing import Round
from cpuaccel.tuning.workload import Shape


class Standing(enum.StrEnum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    MEASURED = "measured"
    REFUSED = "refused"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate that was tried.

    Attributes:
        candidate: what it is.
        standing: what became of it.
        reason: for what was not measured, why.
        speedup: over eager, from pairs measured in the candidate's own process.
        rounds: seconds of eager and of the candidate, round by round and batch by batch.
        differences: from the original's outputs, on each batch.
        evidence: a sentence for each step.
        metric: the user's, where there is one.
        build_seconds: what building it took, checks of its answers included.
        peak_bytes: most memory that its processes were seen to hold, the original included.
        tried_seconds: what trying it took in all.
        runoff: how many times as fast as the one chosen, where it came to the run-off.
    """

    candidate: Candidate
    standing: Standing
    reason: str = ""
    speedup: Speedup | None = None
    rounds: tuple[Round, ...] = field(default=(), repr=False)
    differences: tuple[Difference, ...] = ()
    evidence: tuple[str, ...] = ()
    metric: float | None = None
    build_seconds: float = 0.0
    peak_bytes: int = 0
    tried_seconds: float = 0.0
    runoff: Speedup | None = None

    @property
    def error(self) -> float | None:
        """Largest difference from the original, relative to the output's magnitude."""
        return max((d.relative for d in self.differences), default=None)

    def errors(self) -> dict[str, float]:
        """The same for each output."""
        worst: dict[str, float] = {}
        for difference in self.differences:
            worst[difference.output] = max(difference.relative, worst.get(difference.output, 0.0))
        return worst

    def seconds(self, weights: Sequence[float]) -> list[float]:
        """Of the candidate, a call on average, round by round."""
        return [sum(w * c for w, (_, c) in zip(weights, round_)) for round_ in self.rounds]

    def eager_seconds(self, weights: Sequence[float]) -> list[float]:
        """Of eager in the same process, a call on average, round by round."""
        return [sum(w * e for w, (e, _) in zip(weights, round_)) for round_ in self.rounds]

    def break_even(self, weights: Sequence[float]) -> float | None:
        """Calls until building has paid; None where it never does."""
        if not self.rounds:
            return None
        gain = statistics.median(self.eager_seconds(weights)) - statistics.median(
            self.seconds(weights)
        )
        return self.build_seconds / gain if gain > 0 else None

    def to_dict(self, weights: Sequence[float]) -> dict[str, object]:
        """The same as data that JSON can hold."""
        seconds = self.seconds(weights)
        return {
            "pipeline": self.candidate.name,
            "steps": self.candidate.steps,
            "precision": self.candidate.precision,
            "threads": self.candidate.threads,
            "status": self.standing,
            "reason": self.reason,
            "speedup": _to_dict(self.speedup),
            "runoff": _to_dict(self.runoff),
            "median_ms": statistics.median(seconds) * 1000 if seconds else None,
            "rounds": self.rounds,
            "errors": self.errors(),
            "metric": self.metric,
            "build_seconds": self.build_seconds,
            "break_even_calls": self.break_even(weights),
            "peak_bytes": self.peak_bytes,
            "tried_seconds": self.tried_seconds,
            "evidence": self.evidence,
        }


def _to_dict(speedup: Speedup | None) -> dict[str, float] | None:
    if speedup is None:
        return None
    figures = asdict(speedup)
    figures["rounds"] = figures.pop("pairs")
    return figures


@dataclass(frozen=True)
class Instances:
    """How many calls several processes side by side answer, each pinned to its cores.

    Attributes:
        count: processes.
        threads: of each.
        rows_per_second: of all together, over the measured time.
    """

    count: int
    threads: int
    rows_per_second: float

    def __str__(self) -> str:
        return (
            f"{self.count} processes of {self.threads} threads: "
            f"{self.rows_per_second:.4g} rows a second together"
        )


@dataclass(frozen=True)
class Rule:
    """Which candidate answers a call: one up to a bound, another above it.

    Attributes:
        axis: ``length``, ``padding`` or ``rows``.
        bound: the last value that the first one answers.
        low: answers up to the bound.
        high: answers above it.
        gain: how many times as fast it is as the best single candidate.
    """

    axis: str
    bound: float
    low: Candidate
    high: Candidate
    gain: float

    def choose(self, shape: Shape) -> Candidate:
        """The candidate for calls of this shape."""
        return self.low if getattr(shape, self.axis) <= self.bound else self.high

    def __str__(self) -> str:
        bound = f"{self.bound:.0%}" if self.axis == "padding" else f"{self.bound:g}"
        return f"up to {self.axis} {bound}: {self.low}; above: {self.high}"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What a search found, and how.

    Attributes:
        target: latency or throughput.
        winner: what was chosen; eager where nothing was significantly faster.
        why: why it was chosen.
        rule: where several share the calls by shape, how.
        rows: the candidates that were tried, the best first.
        not_tried: the others, and why.
        shapes: of the example batches.
        weights: how often each is called.
        threads: torch's, equal for all but where said otherwise.
        instances: for throughput, how several processes of the winner did.
        metric: the user's, on the original.
        seconds: that the search took.
        source: ``search``, or the file that the decision was taken from.
        rebuilt: what was found when the winner was built in the caller's process.
    """

    target: str
    winner: Candidate
    why: str
    rule: Rule | None = None
    rows: tuple[Row, ...] = ()
    not_tried: tuple[NotTried, ...] = ()
    shapes: tuple[Shape, ...] = ()
    weights: tuple[float, ...] = ()
    threads: int = 1
    instances: tuple[Instances, ...] = ()
    metric: float | None = None
    seconds: float = 0.0
    source: str = "search"
    rebuilt: tuple[str, ...] = ()

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """The candidates that answer calls."""
        if self.rule is None:
            return (self.winner,)
        return tuple(dict.fromkeys((self.rule.low, self.rule.high)))

    def choosing(self, winner: Candidate) -> "Tuning":
        """The same with another winner, and the rows standing as that makes them."""
        tuning = replace(self, winner=winner, rule=self.rule if winner == self.winner else None)
        chosen = tuning.chosen
        return replace(
            tuning,
            rows=tuple(
                replace(row, standing=Standing.CHOSEN)
                if row.candidate in chosen
                else replace(row, standing=Standing.MEASURED)
                if row.standing is Standing.CHOSEN
                else row
                for row in self.rows
            ),
        )

    def row(self, candidate: Candidate) -> Row | None:
        """What was found of a candidate."""
        return next((row for row in self.rows if row.candidate == candidate), None)

    def __str__(self) -> str:
        lines = [f"tuning    {self.winner}: {self.why}"]
        if self.rule is not None:
            lines.append(f"dispatch  {self.rule}")
        lines += [f"rebuilt   {line}" for line in self.rebuilt]
        if self.source != "search":
            lines.append(f"source    {self.source}, without a search")
        failed = [r for r in self.rows if r.standing not in (Standing.CHOSEN, Standing.MEASURED)]
        if self.rows:
            lines.append(
                f"search    {len(self.rows)} candidates in {self.seconds:.0f} s, "
                f"{len(failed)} of them refused or failed, {len(self.not_tried)} not tried"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The same as data that JSON can hold."""
        return {
            "target": self.target,
            "winner": asdict(self.winner),
            "why": self.why,
            "rule": self.rule and asdict(self.rule),
            "threads": self.threads,
            "batches": [
                {**asdict(shape), "weight": weight}
                for shape, weight in zip(self.shapes, self.weights)
            ],
            "rows": [row.to_dict(self.weights) for row in self.rows],
            "not_tried": [asdict(one) for one in self.not_tried],
            "instances": [asdict(one) for one in self.instances],
            "metric": self.metric,
            "seconds": self.seconds,
            "source": self.source,
            "rebuilt": self.rebuilt,
        }
