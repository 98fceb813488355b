"""Calling ``Backend.apply`` with global settings restored; what it returns, and what it costs."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psutil
import torch

from cpuaccel.building.global_settings import restored_settings
from cpuaccel.building.stage import autocast
from cpuaccel.errors import BackendError, describe_error, one_line
from cpuaccel.pipeline import Options
from cpuaccel.plugin.backend import Applied, Backend, Context, Evidence
from cpuaccel.plugin.slow import warn_if_slow
from cpuaccel.report import Outcome, Status

logger = logging.getLogger("cpuaccel")


def apply_backend(
    backend: Backend[Options],
    model: torch.nn.Module,
    context: Context,
    autocast_dtype: torch.dtype | None,
) -> tuple[Applied, tuple[str, ...]]:
    """Apply a backend once.

    Args:
        backend: the step's backend.
        model: in the form that the backend takes.
        context: see ``Backend.apply``.
        autocast_dtype: the dtype under whose autocast the model runs, None for none.

    Returns:
        What the backend returned, and the names of the global settings that it had changed.

    Raises:
        BackendError: the backend refused, failed, or returned something invalid.
    """
    with applying(backend.name) as restored, autocast(autocast_dtype):
        applied = backend.apply(model, context)
    check_applied(applied)
    return applied, tuple(restored)


@contextmanager
def applying(name: str) -> Iterator[list[str]]:
    """Restore global settings after what a backend does, and warn if it is slow.

    Yields:
        On exit, the names of the global settings that it had changed.

    Raises:
        BackendError: it refused or failed, with a reason in one line.
    """
    try:
        with warn_if_slow(f"applying {name}"), restored_settings() as restored:
            yield restored
    except BackendError as error:
        logger.debug("%s failed", name, exc_info=True)
        if "\n" in error.reason:
            error.reason = one_line(error.reason)
        raise
    except (Exception, SystemExit) as error:  # some engines exit when imported
        logger.debug("%s failed", name, exc_info=True)
        raise BackendError(
            f"it raised {describe_error(error)}", "Leave the step out, or report this"
        ) from error


def check_applied(applied: object) -> None:
    """Check what a backend returned.

    Raises:
        BackendError: it is not as the contract wants it.
    """
    remedy = "Report this to the plugin's author"
    if not isinstance(applied, Applied):
        raise BackendError(f"apply must return an Applied, got a {type(applied).__name__}", remedy)
    if not callable(applied.model):
        kind = type(applied.model).__name__
        raise BackendError(f"Applied.model must be callable, got a {kind}", remedy)
    if not isinstance(applied.evidence, Mapping):
        kind = type(applied.evidence).__name__
        raise BackendError(f"Applied.evidence must be a mapping, got a {kind}", remedy)


def not_applied(step: str, error: BackendError) -> Outcome:
    """The outcome of a step whose backend refused or failed."""
    status = Status.SKIPPED if error.skipped else Status.FAILED
    return Outcome(step, status, error.reason, error.remedy)


class Cost:
    """Time and resident memory since it was made."""

    def __init__(self) -> None:
        self._begun, self._memory = time.perf_counter(), _resident()

    def applied(self, step: str, evidence: Evidence, restored: Sequence[str]) -> Outcome:
        """The outcome of a step that was applied since then."""
        seconds, grown = time.perf_counter() - self._begun, _resident() - self._memory
        return Outcome(
            step, Status.APPLIED, "", "", evidence, seconds, grown, restored=tuple(restored)
        )


def _resident() -> int:
    memory: int = psutil.Process().memory_info().rss
    return memory
