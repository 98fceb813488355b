"""Messages between a search and its worker processes: one line of JSON each."""

import json
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from cpuaccel.report import Difference
from cpuaccel.tuning.workers.timing import Round


@dataclass(frozen=True)
class Job:
    """The candidate that a worker builds. ``outputs``: whether to write them, for the metric."""

    steps: tuple[str, ...]
    precision: str
    threads: int
    tolerance: float | None
    weights: tuple[float, ...]
    to_beat: tuple[float, ...] = ()
    outputs: bool = False


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
class Measure:
    """The command to time the candidate in turn with eager for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Measured:
    """The reply to ``Measure``."""

    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Run:
    """The command to time passes of the candidate alone for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Passes:
    """The reply to ``Run``: seconds of each batch, pass by pass."""

    times: tuple[tuple[float, ...], ...]


Message = Job | Built | Refused | Measure | Measured | Run | Passes

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Job, Built, Refused, Measure, Measured, Run, Passes)
}


def encode(message: Message) -> str:
    """Return a message as one line."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}) + "\n"


def decode(line: str | bytes) -> Message:
    """Return the message of a line."""
    table: dict[str, object] = json.loads(line)
    kind = _KINDS[str(table.pop("kind"))]
    message: Message = TypeAdapter(kind).validate_python(table)
    return message
