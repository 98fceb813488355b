"""The state of a module tree before a step, to undo what the step has changed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cpuaccel.model.attributes import holders

SAMPLE = 64
"""Elements of each weight that are compared, to detect writes that torch does not count."""

_MAX_DEPTH = 4

_Container = list[object] | dict[Any, object] | set[object]


class Snapshot:
    """The structure of a module tree: attributes, submodules, hooks, classes, configurations.

    It also holds the memory of the weights, but does not copy it: a weight that gets other memory
    can be restored, one that is overwritten can't.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        weights: bool,
        ignored: Callable[[torch.Tensor], bool] = lambda tensor: False,
    ) -> None:
        """Take a snapshot.

        Args:
            model: the root of the tree.
            weights: whether to restore the memory of the weights, too.
            ignored: returns whether the model itself overwrites a weight.
        """
        self._objects = [
            (holder.owner, type(holder.owner), holder.values, dict(holder.values))
            for holder in holders(model)
        ]
        copies: dict[int, tuple[_Container, _Container]] = {}
        for _, _, _, values in self._objects:
            for value in values.values():
                _copy_containers(value, copies)
        self._containers = list(copies.values())
        self._weights: list[_Weight] = []
        if weights:
            named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            self._weights = [
                _Weight.take(path, tensor)
                for path, tensor in named.items()
                if tensor.layout is torch.strided and not ignored(tensor)
            ]

    def restore(self) -> list[str]:
        """Undo all changes.

        Returns:
            The paths of weights that were overwritten in memory, which is not undone.
        """
        for owner, kind, values, saved in self._objects:
            if type(owner) is not kind:
                object.__setattr__(owner, "__class__", kind)
            if vars(owner) is not values:
                object.__setattr__(owner, "__dict__", values)
            _refill(values, saved)
        for container, copied in self._containers:
            _refill(container, copied)
        return [weight.path for weight in self._weights if not weight.restore()]


class _Weight(NamedTuple):
    """A weight and its memory."""

    path: str
    tensor: torch.Tensor
    memory: torch.Tensor
    size: int
    version: int | None
    sample: torch.Tensor

    @classmethod
    def take(cls, path: str, tensor: torch.Tensor) -> "_Weight":
        memory = tensor.data
        version = None if tensor.is_inference() else tensor._version
        return cls(path, tensor, memory, _size(memory), version, _sample(memory))

    def restore(self) -> bool:
        """Restore the memory; return whether its contents are as they were."""
        tensor, memory = self.tensor, self.memory
        if _layout(tensor) != _layout(memory):
            tensor.data = memory
        if _size(memory) != self.size:
            return False  # reading it would be out of bounds
        written = self.version is not None and tensor._version != self.version
        return not written and torch.equal(_sample(memory), self.sample)


def _layout(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _size(tensor: torch.Tensor) -> int:
    """Return the bytes of the storage."""
    storage = getattr(tensor, "untyped_storage", tensor.storage)()  # the former from torch 2.0 on
    return int(storage.nbytes())


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of some elements: NaN is not equal to itself."""
    if tensor.device.type != "cpu":
        return torch.empty(0)
    step = max(1, tensor.numel() // SAMPLE)
    return tensor.detach().reshape(-1)[::step].clone().view(torch.uint8)


def _copy_containers(
    value: object, copies: dict[int, tuple[_Container, _Container]], depth: int = 0
) -> None:
    """Copy a list, dict or set, and those in it."""
    if id(value) in copies or depth > _MAX_DEPTH:
        return
    if isinstance(value, list | dict | set):
        copies[id(value)] = value, value.copy()
    if isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            _copy_containers(inner, copies, depth + 1)


def _refill(container: _Container, copied: _Container) -> None:
    """Give a container its elements back, if they are not the same objects in the same order."""
    if isinstance(container, dict) and isinstance(copied, dict):
        if not _identical([*container, *container.values()], [*copied, *copied.values()]):
            container.clear()
            container.update(copied)
    elif isinstance(container, list) and isinstance(copied, list):
        if not _identical(container, copied):
            container[:] = copied
    elif isinstance(container, set) and isinstance(copied, set) and container != copied:
        container.clear()
        container.update(copied)


def _identical(ones: list[object], others: list[object]) -> bool:
    return len(ones) == len(others) and all(a is b for a, b in zip(ones, others))
