"""Tracing modules with properties that raise, such as ``trainer`` of a LightningModule."""

import functools
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.RLock()


@contextmanager
def unread_properties(model: torch.nn.Module) -> Iterator[None]:
    """Keep ``torch.jit.trace`` from reading the properties of modules, where one of them raises.

    It reads every attribute of every module in search of exported methods, and lets no other error
    pass than an ``AttributeError``.
    """
    if not any(map(_has_raising_property, model.modules())):
        yield
        return
    with _lock:
        internal = torch._jit_internal
        before = internal.module_has_exports
        internal.module_has_exports = _has_exports
        try:
            yield
        finally:
            internal.module_has_exports = before


@functools.lru_cache(maxsize=256)  # flatten makes a class for each model
def _properties(kind: type[torch.nn.Module]) -> frozenset[str]:
    return frozenset(
        name for name in dir(kind) if isinstance(inspect.getattr_static(kind, name), property)
    )


def _has_raising_property(module: torch.nn.Module) -> bool:
    for name in _properties(type(module)):
        try:
            getattr(module, name, None)
        except Exception:  # a property may raise anything
            return True
    return False


def _has_exports(module: torch.nn.Module) -> bool:
    """Search as torch does, but not in properties."""
    internal = torch._jit_internal
    export = internal.FunctionModifiers.EXPORT
    items = (getattr(module, n, None) for n in dir(module) if n not in _properties(type(module)))
    return any(
        callable(item) and internal.get_torchscript_modifier(item) is export for item in items
    )
