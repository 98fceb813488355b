"""Messages between a search and its worker processes: one line of JSON each.

A worker receives its ``Job`` and replies ``Built`` or ``Refused``. It answers each ``Time`` with
``Rounds`` or ``Passes``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from cpuaccel.report import Difference
from cpuaccel.tuning.workers.timing import Round


@dataclass(frozen=True)
class Job:
    """The candidate that a worker builds.

    Attributes:
        outputs: whether to write the outputs, for the metric.
        generate: see ``Use``.
    """

    steps: tuple[str, ...]
    precision: str
    threads: int
    tolerance: float | None
    weights: tuple[float, ...]
    to_beat: tuple[float, ...] = ()
    outputs: bool = False
    generate: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Built:
    """The candidate is built in so many seconds, and its outputs match the original's."""

    seconds: float
    differences: tuple[Difference, ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """The candidate can't be built, or its outputs differ from the original's."""

    reason: str
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Time:
    """The command to time the candidate for so many seconds, by itself or in turn with eager."""

    seconds: float
    with_eager: bool


Rounds = tuple[Round, ...]
"""The times of the candidate in turn with eager."""

Passes = tuple[tuple[float, ...], ...]
"""The times of the candidate by itself: seconds of each batch, pass by pass."""

JOB, TIME = TypeAdapter(Job), TypeAdapter(Time)
BUILD = TypeAdapter[Built | Refused](Built | Refused)
ROUNDS, PASSES = TypeAdapter(Rounds), TypeAdapter(Passes)

Message = TypeVar("Message")


def encode(message: object) -> str:
    """Return a message as one line."""
    return json.dumps(message, default=asdict) + "\n"


def decode(line: str | bytes, kind: TypeAdapter[Message]) -> Message:
    """Return the message of a line."""
    return kind.validate_json(line)
