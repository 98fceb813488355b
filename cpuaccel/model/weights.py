"""Telling whether a model's weights are still what they were."""

import itertools
from collections.abc import Iterable, Iterator
from operator import attrgetter, is_
from typing import cast

import torch

WeightsState = tuple[tuple[int, int, int, torch.dtype], ...]
"""For each parameter and buffer: which tensor it is, where its data lies, how often it was changed
in place, and its dtype."""


def weights_state(model: torch.nn.Module) -> WeightsState:
    """What to compare later, in microseconds a tensor, without reading the weights.

    Sees tensors that were replaced, cast, moved, or changed in place: by an optimizer's step,
    ``load_state_dict`` or any other operation of torch's. Does not see changes through ``.data`` or
    numpy, which torch doesn't count either.

    Args:
        model: a module; keep it while its state is kept, or an id may come back as another's.
    """
    return tuple(
        (
            id(tensor),
            tensor.data_ptr(),
            0 if tensor.is_inference() else tensor._version,
            tensor.dtype,
        )
        for tensor in itertools.chain(model.parameters(), model.buffers())
    )


_version = attrgetter("_version")
_pointer = torch.Tensor.data_ptr


def _members(tables: list[dict[str, object]]) -> Iterator[object]:
    return itertools.chain.from_iterable(map(dict[str, object].values, tables))


class WatchedWeights:
    """Notices the same as ``weights_state``, cheaply enough for every call.

    Notices replaced modules, too. A tenth of a microsecond for each parameter, buffer and module,
    because all loops over them are in C.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Watch a model.

        Args:
            model: any module.
        """
        self._model = model
        self._volatile: set[int] = set()
        self.note()

    def note(self) -> None:
        """Take the weights as they are now for unchanged."""
        self._tables: list[dict[str, object]] = [
            cast(dict[str, object], table)
            for module in self._model.modules()
            for table in (module._parameters, module._buffers, module._modules)
            if table and isinstance(table, dict)  # a script's are none
        ]
        self._members = list(_members(self._tables))
        tensors = {id(m): m for m in self._members if isinstance(m, torch.Tensor)}
        # Others, such as sparse ones, have no storage of their own to point to.
        self._tensors = [t for t in tensors.values() if t.layout is torch.strided]
        self._pointers = list(map(_pointer, self._tensors))
        self._counted = [
            tensor
            for tensor in tensors.values()
            if not tensor.is_inference() and id(tensor) not in self._volatile
        ]
        self._versions = list(map(_version, self._counted))

    def changed(self) -> bool:
        """Whether any weight is another than when last noted."""
        return not (
            list(map(_version, self._counted)) == self._versions
            and list(map(_pointer, self._tensors)) == self._pointers
            and all(map(is_, _members(self._tables), self._members))
        )

    def of_copy(self, copied: torch.nn.Module) -> "WatchedWeights":
        """Watch a copy that shares the weights, with the same exceptions."""
        watched = WatchedWeights(copied)
        watched._volatile = self._volatile
        watched.note()
        return watched

    def moved(self, tensors: Iterable[torch.Tensor]) -> None:
        """Take these tensors' memory for unchanged, wherever it lies now."""
        moved = {id(tensor) for tensor in tensors}
        self._pointers = [
            _pointer(tensor) if id(tensor) in moved else pointer
            for tensor, pointer in zip(self._tensors, self._pointers)
        ]

    def leave_to_model(self) -> None:
        """Watch no longer what has changed since: buffers that the model writes when it is called.

        Otherwise every call would look like a change of weights.
        """
        for tensor, version in zip(self._counted, self._versions):
            if tensor._version != version and not isinstance(tensor, torch.nn.Parameter):
                self._volatile.add(id(tensor))
        self.note()
