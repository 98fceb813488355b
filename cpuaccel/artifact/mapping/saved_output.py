"""An output as JSON: its containers, without the tensors, and its form."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr

from cpuaccel.artifact.record import Dtype
from cpuaccel.checks.output_form import BATCH, LENGTH, OutputForm, TensorForm
from cpuaccel.model.output import PLAIN, Structure
from cpuaccel.model.precision import dtype_name
from cpuaccel.model.signature import Axes

_TENSOR = "tensor"
_CONSTANT = "constant"

_CONTAINERS: dict[str, Callable[[Iterator[tuple[str, object]]], object]] = {
    "tuple": lambda members: tuple(value for _, value in members),
    "list": lambda members: [value for _, value in members],
    "dict": dict,
    "OrderedDict": OrderedDict,
}

_TRANSFORMERS = "transformers."

_NAMED_SIZES = {BATCH: BATCH, LENGTH: LENGTH}
"""Sizes are compared by identity."""


class UnsupportedOutputError(Exception):
    """An output that can't be saved, or made again; the message says why, without a subject."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SavedOutput(_Table):
    """A container of an output, a tensor's place in it, or a constant."""

    kind: str  # of Transformers' outputs the module and the name
    keys: tuple[StrictStr, ...] = ()
    members: tuple["SavedOutput", ...] = ()
    constant: StrictBool | StrictInt | StrictFloat | StrictStr | None = None

    @classmethod
    def from_output(cls, output: object) -> Self:
        """Describe an output.

        Raises:
            UnsupportedOutputError: it has another container than tuples, lists, dictionaries and
                outputs of Transformers.
        """
        if isinstance(output, torch.Tensor):
            return cls(kind=_TENSOR)
        if isinstance(output, PLAIN):
            return cls(kind=_CONSTANT, constant=output)
        kind = type(output)
        if isinstance(output, Mapping):
            keys, members = tuple(map(str, output)), tuple(output.values())
            if keys != tuple(output):
                raise UnsupportedOutputError("has a key that is not a string")
        elif isinstance(output, (tuple, list)):
            keys, members = (), tuple(output)
        else:
            raise UnsupportedOutputError(f"is or contains a {kind.__name__}")
        name = kind.__name__ if kind in (tuple, list, dict, OrderedDict) else _class_name(kind)
        return cls(kind=name, keys=keys, members=tuple(map(cls.from_output, members)))

    def to_output(self, tensors: Iterator[torch.Tensor]) -> object:
        """Make an output with these tensors in order.

        Raises:
            UnsupportedOutputError: a class is not among those that are loaded.
            StopIteration: there are too few tensors.
        """
        if self.kind == _TENSOR:
            return next(tensors)
        if self.kind == _CONSTANT:
            return self.constant
        keys = self.keys or [""] * len(self.members)
        members = ((key, one.to_output(tensors)) for key, one in zip(keys, self.members))
        make = _CONTAINERS.get(self.kind)
        return _output_class(self.kind)(**dict(members)) if make is None else make(members)


def describe_output(output: object) -> SavedOutput:
    """Describe an output, and check that it can be made again of its tensors.

    Raises:
        UnsupportedOutputError: it can't.
        BackendError: it can't be taken apart.
    """
    structure = Structure.from_output(output)
    saved = SavedOutput.from_output(output)
    empty = (torch.empty(0) for _ in range(structure.count))
    if Structure.from_output(saved.to_output(empty)) != structure:
        raise UnsupportedOutputError("can't be made again of its tensors")
    return saved


class SavedForm(_Table):
    """An ``OutputForm``, without the type and the axes."""

    class Tensor(_Table):
        """A ``TensorForm``."""

        dtype: Dtype
        sizes: tuple[StrictInt | StrictStr | None, ...]

    tensors: tuple[Tensor, ...]

    @classmethod
    def from_form(cls, form: OutputForm) -> Self:
        """Describe a form."""
        tensors = (
            cls.Tensor(dtype=Dtype(dtype=dtype_name(one.dtype)), sizes=one.sizes)
            for one in form.tensors
        )
        return cls(tensors=tuple(tensors))

    def to_form(self, kind: type, axes: Axes) -> OutputForm:
        """Make the form of outputs of this type.

        Raises:
            KeyError: a size is neither a number nor the batch or the length.
        """
        tensors = (
            TensorForm(
                one.dtype.to_torch(),
                tuple(_NAMED_SIZES[s] if isinstance(s, str) else s for s in one.sizes),
            )
            for one in self.tensors
        )
        return OutputForm(kind, tuple(tensors), axes)


def _class_name(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    _output_class(name)
    return name


def _output_class(name: str) -> Callable[..., object]:
    """Look up an output class of Transformers that is loaded already: nothing is imported."""
    module, _, attribute = name.partition(":")
    outputs = sys.modules.get("transformers.utils.generic")
    kind = getattr(sys.modules.get(module), attribute, None)
    if (
        outputs is None
        or not module.startswith(_TRANSFORMERS)
        or not isinstance(kind, type)
        or not issubclass(kind, outputs.ModelOutput)
    ):
        raise UnsupportedOutputError(f"is or contains a {name[:100]}")
    return kind
