"""Taking a model's output apart into tensors, and putting it together again."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import NamedTuple, TypeGuard

import torch

from cpuaccel.errors import BackendError


class Leaf(NamedTuple):
    """One tensor of an output, and where in the output it stands (``logits``, ``states.0``)."""

    path: str
    tensor: torch.Tensor


@dataclass(frozen=True, slots=True)
class Structure:
    """How one output is built from its tensors: nested dicts, tuples, lists and dataclasses.

    ``torch.utils._pytree`` does the like, but is private, knows no ModelOutput before
    transformers 4.34, and takes an unknown object for a leaf instead of refusing it.

    Attributes:
        kind: the container's type, or ``torch.Tensor`` for a leaf, or None for a constant.
        keys: of a mapping its keys, of a dataclass the names of its members.
        members: of a container, the structures of its members.
        constant: of a constant, its value.
    """

    kind: type | None
    keys: tuple[Hashable, ...] = ()
    members: tuple["Structure", ...] = ()
    constant: object = None

    @classmethod
    def from_output(cls, output: object) -> "Structure":
        """Read the structure of an output.

        Raises:
            BackendError: it holds an object that can't be taken apart, such as a cache.
        """
        if isinstance(output, torch.Tensor):
            return cls(torch.Tensor)
        if output is None or isinstance(output, (bool, int, float, str)):
            return cls(None, constant=output)
        members = _members(output)
        if members is None:
            name = type(output).__name__
            raise BackendError(
                f"forward returns a {name}, which holds more than tensors",
                "Call the model so that it returns tensors only (for a cache: use_cache=False)",
            )
        if isinstance(output, Mapping):
            keys = tuple(output)
        else:
            keys = () if isinstance(output, (tuple, list)) else tuple(name for name, _ in members)
        return cls(type(output), keys, tuple(cls.from_output(member) for _, member in members))

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
        members = [
            next(tensors) if member.kind is torch.Tensor else member.restore(tensors)
            for member in self.members
        ]
        if self.kind in (tuple, list):
            return tuple(members) if self.kind is tuple else members
        if self.kind is dict:
            return dict(zip(self.keys, members))
        if _is_model_output(self.kind):
            return _model_output(self.kind, self.keys, members)
        make: Callable[..., object] = self.kind
        if issubclass(self.kind, tuple):  # a named tuple
            return make(*members)
        if issubclass(self.kind, Mapping):
            return make(zip(self.keys, members))
        return make(**{str(key): member for key, member in zip(self.keys, members)})


@functools.cache
def _is_model_output(kind: type) -> TypeGuard[type[OrderedDict[Hashable, object]]]:
    # By name: this must work without transformers.
    initialize = getattr(kind, "__post_init__", None)
    return getattr(initialize, "__qualname__", "") == "ModelOutput.__post_init__"


def _model_output(
    kind: type[OrderedDict[Hashable, object]], keys: tuple[Hashable, ...], members: list[object]
) -> object:
    """Fill a ModelOutput, which is a dict and a dataclass at once, past its own constructor.

    That takes tens of microseconds to find out which fields are set; here they are known.
    """
    output = kind.__new__(kind)
    for key, member in zip(keys, members):
        OrderedDict.__setitem__(output, key, member)
        output.__dict__[str(key)] = member
    return output


def leaves(output: object, path: str = "") -> list[Leaf]:
    """The tensors of an output in order; objects that can't be taken apart are passed over."""
    if isinstance(output, torch.Tensor):
        return [Leaf(path or "output", output)]
    return [
        leaf
        for name, member in _members(output) or ()
        for leaf in leaves(member, f"{path}.{name}" if path else name)
    ]


def tensors(output: object) -> list[torch.Tensor]:
    """The tensors of an output in order, without their places: cheap enough for every call."""
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
    """A container's members with their names; None for what is no container."""
    if isinstance(output, Mapping):
        return [(str(key), value) for key, value in output.items()]
    if isinstance(output, (tuple, list)):
        return [(str(index), value) for index, value in enumerate(output)]
    if is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name)) for field in fields(output)]
    return None
