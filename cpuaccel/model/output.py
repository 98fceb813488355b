"""Taking a model's output apart into tensors, and rebuilding it from others."""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import NamedTuple

import torch

from cpuaccel.errors import BackendError, describe_error

Build = Callable[[Sequence[object]], object]
"""Builds a container from its members, in order."""

PLAIN = (type(None), bool, int, float, str)
"""Types of the Python values that an output may hold besides tensors."""


_SYMBOLIC = tuple(
    getattr(torch, name) for name in ("SymInt", "SymFloat", "SymBool") if hasattr(torch, name)
)
"""What Python numbers that depend on sizes are while a model is exported."""


class Leaf(NamedTuple):
    """One tensor of an output, and its path in the output (``logits``, ``states.0``)."""

    path: str
    tensor: torch.Tensor


@dataclass(frozen=True, slots=True)
class Structure:
    """How an output is built from its tensors: nested mappings, sequences and dataclasses.

    ``torch.utils._pytree`` is similar, but private, doesn't know ModelOutput before transformers
    4.34, and takes an unknown object for a leaf instead of refusing it.

    Attributes:
        kind: the container's type, ``torch.Tensor`` for a tensor, None for a constant.
        keys: keys of a mapping, names of a dataclass' fields.
        members: the structures of a container's members.
        constant: the value of a constant.
        build: builds the container from its members.
    """

    kind: type | None
    keys: tuple[Hashable, ...] = ()
    members: tuple["Structure", ...] = ()
    constant: object = None
    build: Build = field(default=tuple, compare=False, repr=False)

    @classmethod
    def from_output(cls, output: object) -> "Structure":
        """Read the structure of an output.

        Raises:
            BackendError: it holds an object that can't be taken apart, such as a cache, or a
                container that can't be rebuilt from its members.
        """
        if isinstance(output, torch.Tensor):
            return cls(torch.Tensor)
        if isinstance(output, PLAIN):
            return cls(None, constant=output)
        named = _require_members(output)
        members = [member for _, member in named]
        if isinstance(output, Mapping):
            keys = tuple(output)
        else:
            keys = () if isinstance(output, (tuple, list)) else tuple(name for name, _ in named)
        build = _find_build(output, keys, members)
        return cls(type(output), keys, tuple(map(cls.from_output, members)), build=build)

    @property
    def count(self) -> int:
        """How many tensors an output of this structure has."""
        if self.kind is torch.Tensor:
            return 1
        return sum(member.count for member in self.members)

    def restore(self, tensors: Iterator[torch.Tensor]) -> object:
        """Build an output of this structure, taking its tensors in order."""
        if self.kind is torch.Tensor:
            return next(tensors)
        if self.kind is None:
            return self.constant
        return self.build(
            [
                next(tensors) if member.kind is torch.Tensor else member.restore(tensors)
                for member in self.members
            ]
        )


def require_tensors(output: object) -> None:
    """Raise ``BackendError`` if an output holds something else than tensors and constants."""
    if not isinstance(output, (torch.Tensor, *PLAIN, *_SYMBOLIC)):
        for _, member in _require_members(output):
            require_tensors(member)


def leaves(output: object, path: str = "") -> list[Leaf]:
    """List an output's tensors in order, skipping objects that can't be taken apart."""
    if isinstance(output, torch.Tensor):
        return [Leaf(path or "output", output)]
    return [
        leaf
        for name, member in _members(output) or ()
        for leaf in leaves(member, f"{path}.{name}" if path else name)
    ]


def constants(output: object, path: str = "") -> list[tuple[str, object]]:
    """List what an output holds besides tensors and containers, with paths, in order."""
    if isinstance(output, torch.Tensor):
        return []
    members = _members(output)
    if members is None:
        return [(path or "output", output)]
    return [
        constant
        for name, member in members
        for constant in constants(member, f"{path}.{name}" if path else name)
    ]


def tensors(output: object) -> list[torch.Tensor]:
    """List an output's tensors in order, without paths: cheap enough for every call."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        members: Iterable[object] = output.values()
    elif isinstance(output, (tuple, list)):
        members = output
    else:
        members = [member for _, member in _members(output) or ()]
    found: list[torch.Tensor] = []
    for member in members:
        if isinstance(member, torch.Tensor):
            found.append(member)
        elif member is not None:
            found += tensors(member)
    return found


def _members(output: object) -> list[tuple[str, object]] | None:
    """Return a container's members with their names, None for another object."""
    if isinstance(output, Mapping):
        return [(str(key), value) for key, value in output.items()]
    if isinstance(output, (tuple, list)):
        return [(str(index), value) for index, value in enumerate(output)]
    if is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name)) for field in fields(output)]
    return None


def _require_members(output: object) -> list[tuple[str, object]]:
    members = _members(output)
    if members is None:
        raise BackendError(
            f"forward returns a {type(output).__name__}, which holds more than tensors",
            "Call the model so that it returns tensors only (for a cache: use_cache=False)",
        )
    return members


def _find_build(output: object, keys: tuple[Hashable, ...], members: list[object]) -> Build:
    """Find a way to build an output, and check it on the output's own members."""
    kind = type(output)
    if kind is list or kind is tuple:
        return kind
    if kind is dict or kind is OrderedDict:
        return lambda members: kind(zip(keys, members))
    problem = "its copy differs"
    try:
        build = _build_without_constructor(output, keys) or _build_by_copying(output, members)
        rebuilt = build(members)
        found = _members(rebuilt) or []
        if (
            type(rebuilt) is kind
            and [name for name, _ in found] == [name for name, _ in _members(output) or ()]
            and all(mine is theirs for (_, mine), theirs in zip(found, members))
        ):
            return build
    except Exception as error:  # code of the output's class
        problem = describe_error(error)
    raise BackendError(
        f"forward returns a {kind.__name__}, which can't be rebuilt from its tensors ({problem})",
        "Return a tuple, a dict, a dataclass or a ModelOutput",
    )


def _build_without_constructor(output: object, keys: tuple[Hashable, ...]) -> Build | None:
    """Build named tuples, plain dataclasses and ModelOutputs without calling a constructor.

    It may expect other arguments than the members, and ModelOutput's takes tens of microseconds.
    """
    kind = type(output)
    attributes: dict[str, object] = getattr(output, "__dict__", {})
    if isinstance(output, tuple):
        return None if attributes else getattr(kind, "_make", None)
    names = tuple(map(str, keys))
    if not is_dataclass(output) or names != keys:
        return None
    if isinstance(output, OrderedDict):  # a ModelOutput of transformers or diffusers
        others = attributes.keys() - set(names)
        if all(attributes[name] is getattr(kind, name, attributes) for name in others):
            return functools.partial(_model_output, kind, names)
    elif not isinstance(output, Mapping) and attributes.keys() == set(names):
        return functools.partial(_dataclass, kind, names)
    return None


def _model_output(
    kind: type[OrderedDict[str, object]], names: tuple[str, ...], members: Sequence[object]
) -> object:
    output = kind.__new__(kind)
    attributes, set_item = output.__dict__, OrderedDict.__setitem__
    for name, member in zip(names, members):
        set_item(output, name, member)
        attributes[name] = member
    return output


def _dataclass(kind: type, names: tuple[str, ...], members: Sequence[object]) -> object:
    output: object = object.__new__(kind)
    output.__dict__.update(zip(names, members))
    return output


def _build_by_copying(output: object, members: list[object]) -> Build:
    """Build any other container as a deep copy with other members in the place of its own."""
    places = [object() for _ in members]
    # What deepcopy's memo holds is taken for the copy.
    memo: dict[int, object] = {
        id(member): place for member, place in zip(members, places) if not isinstance(member, PLAIN)
    }
    template = copy.deepcopy(output, memo)
    if any(isinstance(copied, torch.Tensor) for copied in memo.values()):
        raise TypeError("it holds tensors besides its members")

    def build(members: Sequence[object]) -> object:
        return copy.deepcopy(template, {id(p): member for p, member in zip(places, members)})

    return build
