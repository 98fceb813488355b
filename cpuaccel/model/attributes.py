"""The attributes of a module tree, and of the configuration objects that its modules hold."""

import enum
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch

Value = TypeVar("Value")

STRUCTURE = frozenset(vars(torch.nn.Module()))
"""What torch itself keeps in a module: tables of weights and submodules, hooks, the mode."""

LIMIT = 256
"""Elements up to which a container is copied, and objects up to which a graph is followed."""

_MAX_DEPTH = 4

_LIVE = frozenset({"_io", "_thread", "io", "logging", "queue", "threading", "weakref"})
"""Modules whose objects change for reasons of their own."""

_Leaf = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    enum.Enum,
    type,
    torch.dtype,
    torch.device,
    torch.Tensor,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)


class Holder(NamedTuple):
    """An object with attributes: a module, or an object in an attribute of one.

    Attributes:
        path: the path of the module; for an object, the path of the attribute that holds it.
        owner: the module or object.
        values: its attributes by name, the dictionary itself.
    """

    path: str
    owner: object
    values: dict[str, object]

    def name(self, attribute: str) -> str:
        """Return the path of an attribute."""
        return f"{self.path}.{attribute}" if self.path else attribute


def modules_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return all modules by path, those in lists, tuples and dicts too.

    torch does not register the latter, but ``forward`` may call them.
    """
    found = dict(model.named_modules())
    seen = {id(module) for module in found.values()}
    pending = list(found.items())
    while pending:
        path, module = pending.pop()
        for name, value in list(vars(module).items()):
            if name in STRUCTURE:
                continue
            for place, hidden in _modules_in(value, f"{path}.{name}" if path else name):
                for below, inner in hidden.named_modules(prefix=place):
                    if id(inner) not in seen:
                        seen.add(id(inner))
                        found[below] = inner
                        pending.append((below, inner))
    return found


def _modules_in(value: object, path: str, depth: int = 0) -> Iterator[tuple[str, torch.nn.Module]]:
    if isinstance(value, torch.nn.Module):
        yield path, value
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, dict):
        for key, inner in _bounded(value.items()):
            yield from _modules_in(inner, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(_bounded(value)):
            yield from _modules_in(inner, f"{path}[{index}]", depth + 1)


def holders(model: torch.nn.Module, without: frozenset[str] = STRUCTURE) -> Iterator[Holder]:
    """Yield all modules, and the objects of plain values, such as configurations, that they hold.

    Objects in attributes of modules with names in ``without`` are left out.

    An object that holds anything else, a module or a lock for example, is not followed: its state
    may change for reasons of its own.
    """
    seen: set[int] = set()
    for path, module in modules_of(model).items():
        holder = Holder(path, module, vars(module))
        yield holder
        for attribute, value in list(holder.values.items()):
            if attribute not in without:
                objects: dict[int, Holder] = {}
                if _is_plain(value, holder.name(attribute), objects, seen):
                    yield from objects.values()
                    seen.update(objects)


def _is_plain(
    value: object, path: str, objects: dict[int, Holder], seen: set[int], depth: int = 0
) -> bool:
    """Whether a value consists of plain values; adds the objects in it, by identity."""
    if isinstance(value, _Leaf) or id(value) in seen or id(value) in objects:
        return True
    live = isinstance(value, torch.nn.Module | types.ModuleType) or type(value).__module__ in _LIVE
    if live or depth > _MAX_DEPTH or len(objects) > LIMIT:
        return False
    inner: list[tuple[str, object]] = []
    if isinstance(value, Mapping):
        inner = [(f"{path}[{key!r}]", v) for key, v in _bounded(value.items())]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = [(f"{path}[{index}]", v) for index, v in enumerate(_bounded(value))]
    elif isinstance(values := getattr(value, "__dict__", None), dict):
        objects[id(value)] = Holder(path, value, values)
        inner = [(f"{path}.{name}", v) for name, v in list(values.items())]
    return all(_is_plain(v, name, objects, seen, depth + 1) for name, v in inner)


def _bounded(values: Iterable[Value]) -> list[Value]:
    listed = list(values)
    return listed if len(listed) <= LIMIT else []
