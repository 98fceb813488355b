"""Lock files: decisions in TOML, with the fingerprint of what they depend on."""

import contextlib
import fcntl
import logging
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from cpuaccel.artifact.atomic_write import write_file
from cpuaccel.errors import LockError, describe_invalid
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.toml import StepTable
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.decision import Decision
from cpuaccel.tuning.decisions.fingerprint import TuningFingerprint
from cpuaccel.tuning.decisions.result import Axis, Rule, Tuning
from cpuaccel.tuning.request import Target, TuneArguments

logger = logging.getLogger("cpuaccel")

HEADER = """\
# Written by cpuaccel: the fastest pipeline for this model, and what that depends on.
# Used without a search as long as the fingerprint below matches.

"""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PipelineTable(_Table):
    precision: str
    threads: int | None = None
    steps: list[StepTable] = []
    speedup: list[float] = []
    median_ms: float | None = None
    build_seconds: float = 0.0
    error: float | None = None

    @property
    def candidate(self) -> Candidate:
        return Candidate(tuple(s.backend for s in self.steps), self.precision, self.threads)

    @property
    def pipeline(self) -> Pipeline:
        steps = tuple(table.step for table in self.steps)
        return replace(self.candidate.pipeline, steps=steps, source="lock")


class _RuleTable(_Table):
    axis: Axis
    bound: float
    gain: float


class LockTable(_Table):
    """A lock file."""

    version: Literal[1]
    why: str
    target: Target
    threads: int
    unfinished_budget: float | None = None
    rule: _RuleTable | None = None
    pipelines: list[_PipelineTable]
    fingerprint: TuningFingerprint


class Lock(NamedTuple):
    """The content of a lock file."""

    decision: Decision
    tuning: Tuning
    fingerprint: TuningFingerprint


def read_lock(path: Path) -> Lock | None:
    """Read a lock file; None if it does not exist. The error lists every mistake."""
    try:
        table = LockTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LockError(f"{path}: invalid TOML: {error}. Remove the file and tune again") from None
    except ValidationError as error:
        mistakes = "".join(
            f"\n  - {describe_invalid(c, c['loc'], LockTable.model_fields)}" for c in error.errors()
        )
        raise LockError(f"{path}: invalid lock file. Remove it and tune again:{mistakes}") from None
    if len(table.pipelines) != (1 if table.rule is None else 2):
        raise LockError(
            f"{path}: needs 2 pipelines with a rule and 1 without, got {len(table.pipelines)}. "
            "Remove the file and tune again"
        )
    first, last = table.pipelines[0].candidate, table.pipelines[-1].candidate
    rule = None
    if table.rule is not None:
        rule = Rule(table.rule.axis, table.rule.bound, first, last, table.rule.gain)
    tuning = Tuning(
        target=table.target,
        winner=first,
        why=table.why,
        rule=rule,
        threads=table.threads,
        source=str(path),
        unfinished_budget=table.unfinished_budget,
    )
    pipelines = {one.candidate: one.pipeline for one in table.pipelines}
    return Lock(Decision(pipelines, rule, table.threads), tuning, table.fingerprint)


def read_search(path: Path) -> tuple[TuneArguments, float | None]:
    """Read the arguments of the search that wrote a lock file, and its tolerance.

    The batches and ``budget`` are not among them.

    Raises:
        LockError: the file is missing or invalid, or its search had a metric or ``generate``.
    """
    lock = read_lock(path)
    if lock is None:
        raise LockError(
            f"the lock file {path} does not exist. Write it with cpuaccel tune --lock {path}"
        )
    request = lock.fingerprint.request
    for name in ("generate", "metric"):
        if request.get(name, "none") != "none":
            raise LockError(
                f"the search of {path} had {name}, which a lock file only identifies. Pass it to "
                'cpuaccel.optimize(model, "auto", lock=...) and save from Python'
            )
    try:
        threads, tolerance = request["threads"], request["tolerance"]
        arguments: TuneArguments = {
            "lock": path,
            "target": lock.tuning.target,
            "precisions": request["precisions"].split(", "),
            "threads": "auto" if threads == "auto" else int(threads),
        }
        return arguments, None if tolerance == "default" else float(tolerance)
    except (KeyError, ValueError) as error:
        raise LockError(
            f"{path}: invalid lock file. Remove it and tune again: request has {error}"
        ) from None


def write_lock(path: Path, tuning: Tuning, fingerprint: TuningFingerprint) -> None:
    """Write a lock file in one step."""
    decision = Decision.from_tuning(tuning)
    rule = tuning.rule
    table = LockTable(
        version=1,
        why=tuning.why,
        target=tuning.target,
        threads=decision.threads,
        unfinished_budget=tuning.unfinished_budget,
        rule=rule and _RuleTable(axis=rule.axis, bound=rule.bound, gain=round(rule.gain, 3)),
        pipelines=[_pipeline_table(tuning, c, p) for c, p in decision.pipelines.items()],
        fingerprint=fingerprint,
    ).model_dump(exclude_none=True, exclude_unset=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, HEADER + tomli_w.dumps(table))
    except OSError as error:
        raise LockError(
            f"{path} can't be written: {error.strerror}. Choose another path"
        ) from error


def _pipeline_table(tuning: Tuning, candidate: Candidate, pipeline: Pipeline) -> _PipelineTable:
    steps = []
    for step in pipeline.steps:
        options = plugin_host().backends[step.backend].Options(**step.options)
        written = options.model_dump(mode="json", exclude_none=True)  # TOML has no null
        steps.append(StepTable(backend=step.backend, options=written))
    table = _PipelineTable(precision=candidate.precision, threads=candidate.threads, steps=steps)
    row = tuning.row(candidate)
    if row is None or row.speedup is None:
        return table
    measured = {
        "speedup": [round(v, 3) for v in (row.speedup.median, row.speedup.low, row.speedup.high)],
        "median_ms": round(row.median_ms or 0.0, 3),
        "build_seconds": round(row.build_seconds, 2),
        "error": float(f"{row.error or 0.0:.3g}"),
    }
    return table.model_copy(update=measured)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Make other processes that search for the same decision wait, and then use this one's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent / f".{path.name}.held", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # read-only folder; writing the decision reports it
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logger.warning("waiting for another process that is tuning the same model")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)  # as the system does when this process ends
