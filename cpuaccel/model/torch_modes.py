"""The modes of torch in which optimized models run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from cpuaccel.model.precision import autocast_enabled

_NOTHING = nullcontext()


@contextmanager
def _no_autocast() -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def inference() -> AbstractContextManager[None]:
    """Disable gradients and autocast, at no cost if they are disabled already.

    A variant's precision is chosen when it is built: the caller's autocast must not change it.
    """
    if autocast_enabled():
        return _no_autocast()
    return torch.no_grad() if torch.is_grad_enabled() else _NOTHING


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Disable gradients and inference mode, for which some compilers would compile again."""
    with torch.inference_mode(False), torch.no_grad():  # leaving inference mode enables gradients
        yield


def is_captured() -> bool:
    """Whether the call is being traced, exported or compiled.

    Counters, locks and builds must not be captured in its graph.
    """
    return (
        torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        or _is_dynamo_compiling()
        # is_compiling is true in every thread while one exports; dispatch modes are per thread.
        or (_is_compiling() and torch._C._len_torch_dispatch_stack() > 0)
    )


def _never() -> bool:
    return False


# From torch 2.1 on.
_compiler = getattr(torch, "compiler", None)
_is_compiling = getattr(_compiler, "is_compiling", _never)
_is_dynamo_compiling = getattr(_compiler, "is_dynamo_compiling", _never)
