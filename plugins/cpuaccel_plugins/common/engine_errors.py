"""Errors that an engine, an exporter or the model's own code raises, in one form."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from cpuaccel import BackendError, describe_error


def leave_out(backend: str) -> str:
    """The remedy for a model that a backend can't optimize."""
    return f"Leave {backend} out for this model"


@contextmanager
def engine_errors(
    engine: str,
    model: torch.nn.Module,
    remedy: str,
    *,
    innermost: bool = False,
    describe: Callable[[BaseException], str] = describe_error,
) -> Iterator[None]:
    """Raise any error, or with ``innermost`` its root cause, as a ``BackendError`` of one line.

    cpuaccel logs the error with its whole message at level DEBUG.
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:  # engines have no common base class, and a model raises anything
        root: BaseException = error
        while innermost and root.__cause__ is not None:
            root = root.__cause__
        raise BackendError(
            f"{engine} failed on {type(model).__name__}: {describe(root)}", remedy
        ) from error
