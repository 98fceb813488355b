"""Detecting changed hooks, attributes, flags and configurations."""

from collections.abc import Iterable, Iterator, Sized
from operator import attrgetter, call, is_, itemgetter

import torch
from torch.nn.modules import module as torch_module
from torch.utils.hooks import RemovableHandle

from cpuaccel.model.attributes import LIMIT, STRUCTURE, Holder, holders

_GLOBAL_HOOKS = frozenset({"_global_forward_pre_hooks", "_global_forward_hooks"})
_HOOKS = _GLOBAL_HOOKS | {"_forward_pre_hooks", "_forward_hooks"}

_WITHOUT_EFFECT = STRUCTURE | {
    "_is_hf_initialized",
    # Read by generate, which the original runs, and not by forward.
    "generation_config",
    # Read when Transformers loads, saves or distributes a model.
    "name_or_path",
    "_tp_plan",
    "_ep_plan",
    "_pp_plan",
    "_fsdp_plan",
    "all_tied_weights_keys",
    "_keep_in_fp32_modules",
    "_keep_in_fp32_modules_strict",
    "_no_split_modules",
    "_skip_keys_device_placement",
    "_keys_to_ignore_on_load_unexpected",
    "_keys_to_ignore_on_load_missing",
    "_keys_to_ignore_on_save",
}

_WITHOUT_EFFECT_IN_TORCH = _WITHOUT_EFFECT | {
    # Read when a module is made or printed, or in training.
    "in_features",
    "out_features",
    "num_embeddings",
    "embedding_dim",
    "scale_grad_by_freq",
    "sparse",
    "elementwise_affine",
    "inplace",
    "momentum",
    "p",
}

_MAX_DEPTH = 4

_version = attrgetter("_version")


class WatchedState:
    """Detects changed hooks, attributes and configurations, cheaply enough for every call.

    It watches the forward hooks of all modules and torch's global ones; the attributes of all
    modules, and the elements of lists, tuples, dicts and sets in them; the attributes of objects
    that consist of plain values, such as a Transformers configuration; and counted writes to
    tensors among all these. It does not detect changes inside other objects, and of classes,
    functions and global variables. ``WatchedWeights`` watches parameters, buffers and submodules.
    It takes 0.05 microseconds per module: all loops are in C.
    """

    def __init__(self, model: torch.nn.Module, ignored: Iterable[str] = ()) -> None:
        self._model = model
        self._ignored = frozenset(ignored)
        self.reset()

    def reset(self) -> None:
        """Take the state as it is now as unchanged."""
        self._taken = _Snapshot(self._model, self._ignored)
        # Values that are not equal to themselves can't be watched.
        unequal = [] if self._taken.matches() else self._taken.differences()
        if unequal:
            self._ignored = self._ignored.union(unequal)
            self._taken = _Snapshot(self._model, self._ignored)

    def changed(self) -> bool:
        """Whether the state has changed since ``reset``."""
        taken = self._taken
        if taken.matches():
            return False
        if not self._ignored.issuperset(taken.differences()):
            return True
        self._taken = _Snapshot(self._model, self._ignored)  # cpuaccel's own hooks may differ
        return False

    def written(self) -> list[str]:
        """Return the paths of the attributes and hooks that have changed since ``reset``."""
        return [path for path in self._taken.differences() if path not in self._ignored]

    def ignore(self, paths: Iterable[str]) -> None:
        """Ignore attributes that the model writes itself, by path."""
        self._ignored = self._ignored.union(paths)

    def ignore_written(self) -> list[str]:
        """Ignore the attributes that have changed since ``reset``, and return their paths."""
        written = self.written()
        self.ignore(written)
        return written

    def for_copy(self, copied: torch.nn.Module) -> "WatchedState":
        """Watch a copy, ignoring the same attributes."""
        return WatchedState(copied, self._ignored)


class _Snapshot:
    """The state of a model at one time."""

    def __init__(self, model: torch.nn.Module, ignored: frozenset[str]) -> None:
        self._registered = RemovableHandle.next_id  # before the tables: another thread may register
        tables = {name: getattr(torch_module, name) for name in _GLOBAL_HOOKS}
        for_all = Holder("torch.nn.modules.module", torch_module, tables)
        found = holders(model, _WITHOUT_EFFECT)
        self._watched = [_Watched(holder, ignored) for holder in (*found, for_all)]
        read = [watched for watched in self._watched if watched.copies]
        self._getters = [itemgetter(*watched.copies) for watched in read]
        self._tables = [watched.holder.values for watched in read]
        self._values = [_as_read(watched.copies) for watched in read]
        hooks = [pair for watched in self._watched for pair in watched.hooks.values()]
        self._without_hooks = [table for table, copied in hooks if not copied]
        self._hooks = [table for table, copied in hooks if copied]
        self._hook_copies = [copied for _, copied in hooks if copied]
        self._sized = [sized for watched in self._watched for _, sized in watched.sized]
        self._sizes = list(map(len, self._sized))
        self._tensors = [tensor for watched in self._watched for _, tensor, _ in watched.tensors]
        self._versions = list(map(_version, self._tensors))

    def matches(self) -> bool:
        """Whether nothing has changed at all, cpuaccel's own hooks included."""
        try:
            return (
                not self._has_new_hooks()
                and self._values == list(map(call, self._getters, self._tables))
                and self._sizes == list(map(len, self._sized))
                and self._hook_copies == self._hooks
                and self._versions == list(map(_version, self._tensors))
            )
        except Exception:  # an attribute was deleted, or can't be compared
            return False

    def _has_new_hooks(self) -> bool:
        """Whether a table of hooks is no longer empty; reads them only after a registration."""
        latest = RemovableHandle.next_id  # torch numbers all hooks of a process
        if self._registered != latest:
            if any(self._without_hooks):
                return True
            self._registered = latest
        return False

    def differences(self) -> list[str]:
        """Return the paths of what has changed."""
        return list(dict.fromkeys(path for w in self._watched for path in w.differences()))


class _Watched:
    """What one object held at one time.

    Attributes:
        holder: the object.
        copies: its attributes; containers are copied, so that changed elements are noticed.
        hooks: a module's tables of hooks, each with a copy.
        sized: objects whose size is watched, by attribute.
        tensors: tensors in attributes, each with its version, by attribute.
    """

    def __init__(self, holder: Holder, ignored: frozenset[str]) -> None:
        self.holder = holder
        self._ignored = ignored
        self.hooks: dict[str, tuple[dict[int, object], dict[int, object]]] = {}
        self.sized: list[tuple[str, Sized]] = []
        self.tensors: list[tuple[str, torch.Tensor, int]] = []
        self.copies: dict[str, object] = {}
        for name in _HOOKS & holder.values.keys():
            table = holder.values[name]
            if isinstance(table, dict) and holder.name(name) not in ignored:
                self.hooks[name] = table, dict(table)
        for name in self._names():
            self.copies[name] = self._copy(name, holder.values[name])
        self._sizes = [len(sized) for _, sized in self.sized]
        if not any(path.rpartition(".")[0] == holder.path for path in ignored):
            self.sized.append(("", holder.values))  # a new attribute makes it larger

    def differences(self) -> Iterator[str]:
        """Yield the paths of what has changed."""
        values = self.holder.values
        for name, (table, copied) in self.hooks.items():
            if _without_own(table) != _without_own(copied):
                yield self.holder.name(name)
        for name in self.copies.keys() ^ set(self._names()):  # added or deleted
            yield self.holder.name(name)
        for name, copy in self.copies.items():
            if name in values and not _same(copy, values[name]):
                yield self.holder.name(name)
        for (name, sized), size in zip(self.sized, self._sizes):
            if len(sized) != size:
                yield self.holder.name(name)
        for name, tensor, version in self.tensors:
            if tensor._version != version:
                yield self.holder.name(name)

    def _names(self) -> list[str]:
        owner = self.holder.owner
        excluded = _GLOBAL_HOOKS
        if isinstance(owner, torch.nn.Module):
            in_torch = type(owner).__module__.startswith("torch.nn.")
            excluded = _WITHOUT_EFFECT_IN_TORCH if in_torch else _WITHOUT_EFFECT
        return [
            name
            for name in list(self.holder.values)
            if name not in excluded and self.holder.name(name) not in self._ignored
        ]

    def _copy(self, name: str, value: object, depth: int = 0) -> object:
        if isinstance(value, torch.Tensor):
            if not value.is_inference():
                self.tensors.append((name, value, value._version))
            return _Itself(value) if value.numel() == 1 else value
        if not isinstance(value, list | tuple | set | frozenset | dict):
            return value
        if len(value) > LIMIT or depth > _MAX_DEPTH:
            self.sized.append((name, value))
            return value
        if isinstance(value, dict):
            return {key: self._copy(name, v, depth + 1) for key, v in value.items()}
        if isinstance(value, set | frozenset):
            return set(value)
        copied = [self._copy(name, v, depth + 1) for v in value]
        if not isinstance(value, tuple):
            return copied
        return value if all(map(is_, copied, value)) else tuple(copied)


class _Itself:
    """Equal to one tensor only: another tensor of one element may have an equal value."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __eq__(self, other: object) -> bool:
        return other is self._tensor

    __hash__ = None  # type: ignore[assignment]


def _as_read(copies: dict[str, object]) -> object:
    """Return values as ``itemgetter`` returns them."""
    values = tuple(copies.values())
    return values if len(values) > 1 else values[0]


def _same(copied: object, value: object) -> bool:
    try:
        return copied is value or bool(copied == value)
    except Exception:  # comparing tensors or arrays
        return False


def _without_own(hooks: dict[int, object]) -> dict[int, object]:
    """Leave out the hook that refuses calls while weights are released."""
    return {
        key: hook
        for key, hook in hooks.items()
        if not (getattr(hook, "__module__", None) or "").startswith("cpuaccel.")
    }
