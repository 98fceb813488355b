"""Tracing modules with properties that raise or log, such as ``trainer`` of a LightningModule."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_lock = threading.RLock()


@contextmanager
def unread_properties(model: torch.nn.Module) -> Iterator[None]:
    """Keep ``torch.jit.trace`` from reading the properties of modules.

    It reads every attribute of every module in search of exported methods, and lets no other error
    pass than an ``AttributeError``. Transformers logs a warning where ``loss_function`` is read.
    """
    names = {kind: _properties(kind) for kind in {type(module) for module in model.modules()}}
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
