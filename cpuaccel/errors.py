"""The exceptions that users see, and helpers for their messages.

::

    CpuaccelError
    ├── PipelineError    a pipeline is wrong on any host; lists every mistake
    ├── StepError        strict=True, and a step is not applied or fails in a call
    ├── BackendError     a backend's apply fails for a known reason
    ├── SignatureError   forward can't be called with these inputs
    ├── ModelError       a model can't be found, loaded, copied or called
    ├── ForkError        a call after fork, in which torch would deadlock
    ├── ArtifactError    a folder can't be written or loaded as an optimized model
    ├── LockError        a lock file of backends="auto" can't be used
    ├── QueueFullError   a Batcher has too much waiting; try again later
    ├── ClosedError      a Batcher or ProcessPool is closed
    └── WorkerError      a process of a ProcessPool ended

A message states what is wrong with the value seen, then the remedy. Exceptions that never leave
the package stay in the modules that raise and catch them.
"""

import difflib
import signal
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_TEXT = 1000
"""Characters of what a message repeats from a file, which may have any length."""


class CpuaccelError(Exception):
    """Base of all errors that cpuaccel raises on purpose."""


class PipelineError(CpuaccelError):
    """A pipeline that is wrong on any host.

    Attributes:
        problems: every mistake found, one sentence each.
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__(f"{subject}: {count}\n{lines}")


class StepError(CpuaccelError):
    """With ``strict=True``: a step that is not applied, or that fails in a call."""


class BackendError(CpuaccelError):
    """Raised by a backend's ``apply`` for a failure with a known reason.

    Attributes:
        reason: why the backend can't be applied, without a full stop.
        remedy: what the user can do about it.
        skipped: whether nothing failed, but the backend has nothing to make faster.
    """

    def __init__(self, reason: str, remedy: str = "", *, skipped: bool = False) -> None:
        self.reason = reason
        self.remedy = remedy
        self.skipped = skipped
        super().__init__(f"{reason}. {remedy}" if remedy else reason)


class SignatureError(CpuaccelError):
    """Inputs that the model's ``forward`` can't be called with."""


class ModelError(CpuaccelError):
    """A model that can't be found, loaded, copied or called."""


class ForkError(CpuaccelError):
    """A call in a forked process, in which torch would deadlock."""


class ArtifactError(CpuaccelError):
    """A folder that an optimized model can't be written to or loaded from."""


class LockError(CpuaccelError):
    """A lock file that can't be read, written or, where it must be used, does not fit."""


class QueueFullError(CpuaccelError):
    """A call that does not fit into the queue of a ``Batcher`` now.

    Attributes:
        retry_after: seconds that what waits will probably take.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class ClosedError(CpuaccelError):
    """A call of a ``Batcher`` or ``ProcessPool`` that is closed."""


class WorkerError(CpuaccelError):
    """A process of a ``ProcessPool`` that ended, or raised what can't be sent."""


_LONGEST_VALUE = 200
"""Characters shown of a wrong value or of another library's message: both may be of any length."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``. Did you mean 'jit'?`` for the closest known word, ``.`` where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {close[0]!r}?" if close else "."


def describe_invalid(
    error: "ErrorDetails", location: Sequence[int | str], known: Iterable[str]
) -> str:
    """Describe one of pydantic's validation errors in a sentence.

    Args:
        error: one item of ``ValidationError.errors()``.
        location: path to the field, relative to what the reader looks at.
        known: names of the fields that exist there.
    """
    name = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        close = did_you_mean(name, known)
        return f"unknown name {name!r}{close} Available: {', '.join(known) or 'none'}"
    if error["type"] == "missing":
        return f"{name!r} is missing: add it"
    field = f"{name}: " if name else ""
    return f"{field}{error['msg'].lower()}, but got {repr(error['input'])[:_LONGEST_VALUE]}"


def shortened(text: str) -> str:
    """Cut a text after ``MOST_TEXT`` characters, and say how much is left out."""
    rest = len(text) - MOST_TEXT
    return f"{text[:MOST_TEXT]}... ({rest} more characters)" if rest > 0 else text


def one_line(text: str) -> str:
    """Return the first line of a text that says something, at most 200 characters of it.

    A line that ends in a colon only announces the next one, so the two are joined.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    joined = ""
    while lines and (not joined or joined.endswith(":")):
        joined = f"{joined} {lines.pop(0)}".strip()
    if len(joined) > _LONGEST_VALUE:
        sentence = joined[:_LONGEST_VALUE].rpartition(". ")[0]
        joined = sentence or joined[: _LONGEST_VALUE - 1].rstrip() + "…"
    return joined.rstrip(".:")


def first_line(error: BaseException) -> str:
    """Return an error's message as ``one_line``, or the error's type if it has no message."""
    return one_line(str(error)) or type(error).__name__


def describe_exit(code: int) -> str:
    """Say how a process ended, as what follows its name."""
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    memory = ", as the system does when memory is short," if -code == signal.SIGKILL else ""
    return f"was ended by {name}{memory}"


def describe_error(error: BaseException) -> str:
    """Return an error's type and its message as one line of at most 200 characters."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
