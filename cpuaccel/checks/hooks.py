"""The caller's hooks on a model: functions that a captured graph would run only once."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.modules import module as torch_module

from cpuaccel.plugin.verdict import Verdict

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_PART_OF_MODELS = ("torch.nn.", "cpuaccel.", "cpuaccel_plugins.")
"""weight_norm and spectral_norm, and the hooks of backends."""

REMEDY = (
    "Remove the hook with handle.remove() to run the optimized model, or move what it computes "
    "into the module's forward"
)


class Hook(NamedTuple):
    """A forward hook, and the path of its module."""

    function: Callable[..., object]
    place: str


def callers_hooks(model: torch.nn.Module) -> list[Hook]:
    """Return the forward hooks that the caller registered.

    Hooks of torch.nn, of backends, and of the installed packages that define the model's classes
    are part of the model.
    """
    packages = {type(module).__module__.partition(".")[0] for module in model.modules()}
    own = {package for package in packages - {"torch"} if _is_installed(package)}
    return [
        hook
        for hook in _hooks(model)
        if not (module := _module_of(hook.function)).startswith(_PART_OF_MODELS)
        and module.partition(".")[0] not in own
    ]


def without(hooks: Iterable[Hook], known: Iterable[Hook]) -> list[Hook]:
    """Return the hooks that are not among the known ones."""
    identities = {id(hook.function) for hook in known}
    return [hook for hook in hooks if id(hook.function) not in identities]


def capturing_verdict(hooks: Iterable[Hook]) -> Verdict:
    """Refuse capturing a model with hooks of its caller."""
    return _refusal(
        hooks,
        "the model has a forward hook on {}, which would run only while the model is captured",
    )


def late_verdict(hooks: Iterable[Hook]) -> Verdict:
    """Refuse every step while hooks are on the model that were registered later."""
    return _refusal(
        hooks,
        "a forward hook was registered on {} after the model was optimized, and an optimized model "
        "may call it with other tensors or not at all",
    )


def _refusal(hooks: Iterable[Hook], reason: str) -> Verdict:
    """Refuse hooks, with their places in the reason; yes where there are none."""
    places = list(dict.fromkeys(hook.place for hook in hooks))
    if not places:
        return Verdict.yes()
    others = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return Verdict.no(reason.format(f"{places[0]}{others}"), REMEDY)


def _hooks(model: torch.nn.Module) -> Iterator[Hook]:
    for table in (torch_module._global_forward_pre_hooks, torch_module._global_forward_hooks):
        for function in table.values():
            yield Hook(function, "every module")
    for path, module in model.named_modules():
        for table in (module._forward_pre_hooks, module._forward_hooks):
            for function in table.values():
                yield Hook(function, path or type(module).__name__)


def _module_of(hook: object) -> str:
    """Return the name of the Python module that defines a hook."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    return getattr(hook, "__module__", None) or type(hook).__module__


def _is_installed(package: str) -> bool:
    path = getattr(sys.modules.get(package), "__file__", None)
    return path is not None and not _INSTALLED.isdisjoint(Path(path).parts)
