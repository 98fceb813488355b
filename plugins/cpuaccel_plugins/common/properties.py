"""Tracing modules with properties that raise, such as ``trainer`` of a LightningModule."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_lock = threading.RLock()


@contextmanager
def unread_properties(model: torch.nn.Module) -> Iterator[None]:
    """Keep ``torch.jit.trace`` from reading the properties of modules, where one of them raises.

    It reads every attribute of every module in search of exported methods, and lets no other error
    pass than an ``AttributeError``.
    """
    names = {kind: _properties(kind) for kind in {type(module) for module in model.modules()}}
    if not any(_raises(module, names[type(module)]) for module in model.modules()):
        yield
        return
    internal = torch._jit_internal
    export = internal.FunctionModifiers.EXPORT
    modifier: Callable[[object], object] = internal.get_torchscript_modifier

    def has_exports(module: torch.nn.Module) -> bool:
        skipped = names.get(type(module), frozenset())
        items = (getattr(module, name, None) for name in dir(module) if name not in skipped)
        return any(callable(item) and modifier(item) is export for item in items)

    with _lock:
        before = internal.module_has_exports
        internal.module_has_exports = has_exports
        try:
            yield
        finally:
            internal.module_has_exports = before


def _properties(kind: type) -> frozenset[str]:
    return frozenset(
        name for name in dir(kind) if isinstance(inspect.getattr_static(kind, name), property)
    )


def _raises(module: torch.nn.Module, properties: frozenset[str]) -> bool:
    for name in properties:
        try:
            getattr(module, name, None)
        except Exception:  # a property may raise anything
            return True
    return False
