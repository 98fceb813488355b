"""What a search and its worker processes tell each other: a line of JSON each."""

import json
from dataclasses import asdict, dataclass
from typing import IO

from pydantic import TypeAdapter

from cpuaccel.report import Difference
from cpuaccel.tuning.workers.timing import Round


@dataclass(frozen=True)
class Job:
    """What a worker process is to do.

    Attributes:
        steps: names of the backends, in order.
        precision: of the pipeline.
        threads: torch's.
        tolerance: as ``optimize`` takes it.
        weights: how often each batch is called.
        seconds: for timing.
        to_beat: the best speedup so far, for each batch.
        outputs: whether its outputs are to be written for the metric.
    """

    steps: tuple[str, ...]
    precision: str
    threads: int
    tolerance: float | None
    weights: tuple[float, ...]
    seconds: float
    to_beat: tuple[float, ...]
    outputs: bool


@dataclass(frozen=True)
class Built:
    """The candidate was built and answers as the original does.

    Attributes:
        seconds: that building took, checks of the answers excluded where they can be told apart.
        differences: from the original's outputs, on each batch.
        evidence: a sentence for each step.
    """

    seconds: float
    differences: tuple[Difference, ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """The candidate can't be had, or is not what it should be.

    Attributes:
        reason: why.
        differences: from the original's outputs, as far as they were compared.
    """

    reason: str
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Measured:
    """How fast it was, next to eager.

    Attributes:
        rounds: seconds of eager and of the candidate, for each batch.
    """

    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Turn:
    """How fast it was in one turn of the run-off.

    Attributes:
        times: seconds of each batch, pass by pass.
    """

    times: tuple[tuple[float, ...], ...]


Message = Built | Refused | Measured | Turn

_KINDS: dict[str, type[Message]] = {k.__name__: k for k in (Built, Refused, Measured, Turn)}


def tell(message: Message | Job, stream: IO[str]) -> None:
    """Write one message."""
    stream.write(json.dumps({"kind": type(message).__name__, **asdict(message)}) + "\n")
    stream.flush()


def understand(line: str) -> Message:
    """Read one message back."""
    table: dict[str, object] = json.loads(line)
    kind = _KINDS[str(table.pop("kind"))]
    message: Message = TypeAdapter(kind).validate_python(table)
    return message


def job_of(line: str) -> Job:
    """Read a job back."""
    table: dict[str, object] = json.loads(line)
    del table["kind"]
    return TypeAdapter(Job).validate_python(table)
