"""Running a method of a model so that calls of the model in it reach another one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MethodType, new_class

import torch

Call = Callable[..., object]


class _Redirected:
    """A model with another ``forward``. It shares the attributes of the model, by one dict."""

    __slots__ = ("_redirected_call", "_redirected_model")

    _redirected_call: Call
    _redirected_model: torch.nn.Module

    def __init_subclass__(cls) -> None:
        """Keep the model's own ``__init_subclass__`` from registering the class."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._redirected_call(*args, **kwargs)

    @property
    def forward(self) -> Call:
        return self._redirected_call

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._redirected_model)

    def __reduce_ex__(self, protocol: object) -> str | tuple[object, ...]:
        return self._redirected_model.__reduce_ex__(protocol)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=128)
def _redirected_class(kind: type[torch.nn.Module]) -> type[torch.nn.Module]:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    bases = (_Redirected, kind)
    return new_class(kind.__name__, bases, exec_body=lambda body: body.update(names))


def can_redirect(method: object, model: torch.nn.Module) -> bool:
    """Whether ``redirect`` can run this: a method that is bound to the model, in Python."""
    return (
        isinstance(method, MethodType)
        and method.__self__ is model
        and not isinstance(model, torch.jit.ScriptModule)
    )


def redirect(
    method: MethodType, call: Call, args: Sequence[object], kwargs: Mapping[str, object]
) -> object:
    """Run a method of a model; what it sets is set on the model.

    Args:
        method: a method for which ``can_redirect`` is true.
        call: serves ``self(...)`` and ``self.forward(...)`` in the method.
        args: of the method, without ``self``.
        kwargs: of the method.

    Returns:
        What the method returns; the model itself where it returns ``self``.
    """
    model = method.__self__
    assert isinstance(model, torch.nn.Module)
    instance = object.__new__(_redirected_class(type(model)))  # type: ignore[arg-type]
    # Not by the model's own __setattr__, which would register modules and parameters.
    object.__setattr__(instance, "__dict__", model.__dict__)
    object.__setattr__(instance, "_redirected_call", call)
    object.__setattr__(instance, "_redirected_model", model)
    output: object = method.__func__(instance, *args, **kwargs)
    return model if output is instance else output
