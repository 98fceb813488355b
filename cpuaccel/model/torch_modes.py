"""The modes of torch that a call is answered in."""

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
    """No gradients and no autocast, at no cost where the caller has it so already.

    The precision was chosen when the variant was built: the caller's autocast must not cast again
    inside of it.
    """
    if autocast_enabled():
        return _no_autocast()
    return torch.no_grad() if torch.is_grad_enabled() else _NOTHING


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """No gradients, and no inference mode, for which some compilers would compile once more."""
    with torch.inference_mode(False), torch.no_grad():  # leaving it switches gradients on
        yield


def is_captured() -> bool:
    """Whether a tracer, an exporter or a compiler follows the call.

    It would take into its graph what only makes sense in Python: counting, locks, building.
    """
    return (
        torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        or _is_dynamo_compiling()
        # An exporter says that it is at work to every thread; the modes by which are this one's.
        or (_is_compiling() and torch._C._len_torch_dispatch_stack() > 0)
    )


def _never() -> bool:
    return False


# From torch 2.1 on.
_compiler = getattr(torch, "compiler", None)
_is_compiling = getattr(_compiler, "is_compiling", _never)
_is_dynamo_compiling = getattr(_compiler, "is_dynamo_compiling", _never)
