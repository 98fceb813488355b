"""A cache that grows without copying its contents at each token."""

from typing import Self

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from cpuaccel.generation.storing import SlidingLayer, StoringLayer
from cpuaccel.plugin.storage import Storage

SPARE = 64
"""Least number of tokens that new memory has room for."""


class GrowingLayer(StoringLayer):
    """Keys and values at the beginning of memory that has room for more tokens.

    ``keys`` and ``values`` are views of the used part, so whatever works with a ``DynamicLayer``
    works with it. Where they were replaced (reordered, selected), memory is allocated anew.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, layer: DynamicLayer) -> "GrowingLayer":
        """Take over the contents of another layer."""
        growing = cls()
        if layer.keys is not None and layer.values is not None:
            growing.lazy_initialization(layer.keys, layer.values)
            growing.keys, growing.values = layer.keys, layer.values
        return growing

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the cache, and return all of it.

        Args:
            key_states: the new keys, shape (batch, heads, tokens, head size).
            value_states: the new values, likewise.
            args: ignored, as in ``DynamicLayer``.
            kwargs: ignored, as in ``DynamicLayer``.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.keys.dtype != key_states.dtype or key_states.requires_grad:  # by the original
            self._memory = None
            return super().update(key_states, value_states)
        used = self.get_seq_length()
        total = used + key_states.shape[-2]
        memory = self._memory
        if memory is None or not _has_room(memory, (self.keys, self.values), total):
            memory = self._memory = (
                _allocate(self.keys, key_states, used, total),
                _allocate(self.values, value_states, used, total),
            )
        for part, new in zip(memory, (key_states, value_states), strict=True):
            part[:, :, used:total].copy_(new)
        self.keys, self.values = (part[:, :, :total] for part in memory)
        return self.keys, self.values

    def __copy__(self) -> Self:
        """Share the contents, but not the memory after them."""
        self.read()
        copied = type(self)()
        copied.__dict__.update(self.__dict__)
        copied._memory = self._memory = None
        return copied

    def put(self, storage: Storage) -> None:
        """Replace the contents by what is in an engine's memory."""
        super().put(storage)
        self._memory = None

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens; what a caller holds of them is not overwritten later."""
        super().crop(tokens_to_remove)
        self._memory = None

    def reset(self) -> None:
        """Drop the contents."""
        super().reset()
        self._memory = None


def _has_room(
    memory: tuple[torch.Tensor, torch.Tensor], used: tuple[torch.Tensor, torch.Tensor], total: int
) -> bool:
    """Whether the used parts are still views of the memory, and it is large enough."""
    return all(
        part.data_ptr() == view.data_ptr()
        and len(part) == len(view)
        and part.shape[2] >= total
        # Outside of inference mode its tensors can't be written to.
        and part.is_inference() == torch.is_inference_mode_enabled()
        for part, view in zip(memory, used, strict=True)
    )


def _allocate(kept: torch.Tensor, new: torch.Tensor, used: int, total: int) -> torch.Tensor:
    batch, heads, _, size = new.shape
    memory = new.new_empty(batch, heads, max(2 * used, total + SPARE), size)
    if used:
        memory[:, :, :used].copy_(kept)
    return memory


class Restorable:
    """The state of a cache before a call, to which it can be set back."""

    def __init__(self, cache: DynamicCache) -> None:
        self._cache = cache
        self._states = [vars(layer).copy() for layer in cache.layers]

    def restore(self) -> None:
        """Drop what the layers have got since then; they replace their tensors, or append."""
        del self._cache.layers[len(self._states) :]
        for layer, state in zip(self._cache.layers, self._states, strict=True):
            vars(layer).clear()
            vars(layer).update(state)


def bytes_of(cache: DynamicCache) -> int:
    """Bytes of keys and values in a cache that ``let_grow`` was called with."""
    total = 0
    for layer in cache.layers:
        assert isinstance(layer, StoringLayer)
        if layer.storage is not None:
            total += layer.storage.nbytes
        else:
            total += sum(tensor.nbytes for tensor in layer.read() if tensor is not None)
    return total


def let_grow(cache: DynamicCache) -> None:
    """Replace the layers of a cache by ones that grow and that may use a storage."""
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = GrowingLayer.of(layer)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = SlidingLayer.of(layer)


def unsupported(cache: object) -> str:
    """Say why a stepper can't work with a cache; empty if it can."""
    if not isinstance(cache, Cache):
        return "there is no cache (use_cache=False)"
    if type(cache) is not DynamicCache or cache.offloading:
        return f"the cache is of another kind ({type(cache).__name__})"
    kinds = {type(layer) for layer in cache.layers}
    others = kinds - {DynamicLayer, GrowingLayer, DynamicSlidingWindowLayer, SlidingLayer}
    return f"the cache has layers of another kind ({others.pop().__name__})" if others else ""
