"""Running a method of a model so that calls of the model in it reach another one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType, new_class
from typing import cast

import torch

Call = Callable[..., object]


@dataclass(frozen=True)
class Method:
    """A part that is called with the redirected model before its other arguments."""

    function: Call


class _Redirected:
    """A model with another ``forward``. It shares the attributes of the model, by one dict."""

    __slots__ = ("_redirected_call", "_redirected_model", "_redirected_parts")

    _redirected_call: Call
    _redirected_model: torch.nn.Module
    _redirected_parts: Mapping[str, object]

    def __init_subclass__(cls) -> None:
        """Keep the model's own ``__init_subclass__`` from registering the class."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._redirected_call(*args, **kwargs)

    def __setattr__(self, name: str, value: object) -> None:
        """Set on the model what is meant: no stand-in for another one may stay there."""
        if issubclass(type(value), _Redirected):
            value = object.__getattribute__(value, "_redirected_model")
        super().__setattr__(name, value)

    @property
    def forward(self) -> Call:
        return self._redirected_call

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._redirected_model)

    def __reduce_ex__(self, protocol: object) -> str | tuple[object, ...]:
        return self._redirected_model.__reduce_ex__(protocol)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=128)
def _redirected_class(
    kind: type[torch.nn.Module], parts: tuple[str, ...] = ()
) -> type[torch.nn.Module]:
    names: dict[str, object] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    names |= {name: _Part(functools.partial(_get_part, name)) for name in parts}
    bases = (_Redirected, kind)
    return new_class(kind.__name__, bases, exec_body=lambda body: body.update(names))


class _Part(property):
    """An attribute that may also be called by way of the class, as some methods of it are."""

    def __call__(self, redirected: object, *args: object, **kwargs: object) -> object:
        assert self.fget is not None
        return self.fget(redirected)(*args, **kwargs)


def _get_part(name: str, redirected: _Redirected) -> object:
    part = redirected._redirected_parts[name]
    return MethodType(part.function, redirected) if isinstance(part, Method) else part


def can_redirect(method: object, model: torch.nn.Module) -> bool:
    """Whether ``redirect`` can run this: a method that is bound to the model, in Python."""
    return (
        isinstance(method, MethodType)
        and method.__self__ is model
        and not isinstance(model, torch.jit.ScriptModule)
    )


def redirected(
    model: torch.nn.Module, call: Call, parts: Mapping[str, object] | None = None
) -> torch.nn.Module:
    """Return a model that is another one's, but for calls of it and for some attributes.

    Args:
        model: what is set on the returned model is set on this one.
        call: serves calls of the returned model and of its ``forward``.
        parts: attributes that it has instead of the model's, by name; see ``Method``.
    """
    parts = parts or {}
    kind: type[object] = _redirected_class(type(model), tuple(parts))  # type: ignore[arg-type]
    instance = object.__new__(kind)
    assert isinstance(instance, torch.nn.Module)
    # Not by the model's own __setattr__, which would register modules and parameters.
    object.__setattr__(instance, "__dict__", model.__dict__)
    object.__setattr__(instance, "_redirected_call", call)
    object.__setattr__(instance, "_redirected_model", model)
    object.__setattr__(instance, "_redirected_parts", parts)
    return instance


def call_of(redirected: torch.nn.Module) -> Call:
    """Return what serves calls of a model that is redirected."""
    return cast(_Redirected, redirected)._redirected_call


def redirected_further(
    instance: torch.nn.Module, call: Call, parts: Mapping[str, object]
) -> torch.nn.Module:
    """Return a model like one that is redirected, but for its call and for further attributes."""
    known = cast(_Redirected, instance)
    return redirected(known._redirected_model, call, {**known._redirected_parts, **parts})


def redirect(
    method: MethodType,
    call: Call,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    parts: Mapping[str, object] | None = None,
) -> object:
    """Run a method of a model; what it sets is set on the model.

    Args:
        method: a method for which ``can_redirect`` is true.
        call: serves ``self(...)`` and ``self.forward(...)`` in the method.
        args: of the method, without ``self``.
        kwargs: of the method.
        parts: attributes of ``self`` in the method instead of the model's, by name.

    Returns:
        What the method returns; the model itself where it returns ``self``.
    """
    model = method.__self__
    assert isinstance(model, torch.nn.Module)
    instance = redirected(model, call, parts)
    output: object = method.__func__(instance, *args, **kwargs)
    return model if output is instance else output
