"""Every error that cpuaccel raises on purpose.

Each message says what was asked, what is true and what to do.
"""

from collections.abc import Sequence


class CpuaccelError(Exception):
    """Base of all errors that cpuaccel raises on purpose."""


class PipelineError(CpuaccelError):
    """A pipeline that can't be right on any machine.

    Attributes:
        problems: every mistake found, one sentence each.
    """

    def __init__(self, asked: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__(f"{asked}: {count}\n{lines}")


class StepError(CpuaccelError):
    """With ``strict=True``: a step that could not be applied."""


class ForkError(CpuaccelError):
    """A call in a process that was forked from the one which built the optimized model."""


class BackendError(CpuaccelError):
    """Raised by a backend's ``apply`` for a failure that it foresaw.

    Attributes:
        reason: what is true.
        remedy: what the user can do.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{reason}. {remedy}" if remedy else reason)


class SignatureError(CpuaccelError):
    """Inputs that the model's ``forward`` can't be called with."""


class ModelError(CpuaccelError):
    """A model that can't be found, loaded or copied."""


class ArtifactError(CpuaccelError):
    """A folder that an optimized model can't be written to or read from."""
