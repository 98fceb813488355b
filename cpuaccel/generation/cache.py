"""A cache that grows without copying its contents at each token."""

from collections.abc import Mapping
from typing import Self

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

from cpuaccel.generation.cross_cache import CrossLayer
from cpuaccel.generation.storing import StoringLayer
from cpuaccel.plugin.storage import Storage

SPARE = 64
"""Least number of tokens that new memory has room for."""

Growable = DynamicCache | EncoderDecoderCache
"""The caches that ``unsupported`` has nothing against."""


class GrowingLayer(StoringLayer):
    """Keys and values in memory that has room for more tokens after them.

    ``keys`` and ``values`` are views of the used part, so whatever works with a ``DynamicLayer``
    works with it. Where they were replaced (reordered, selected), memory is allocated anew.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._memory: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, layer: DynamicLayer) -> Self:
        """Take over the contents of another layer."""
        growing = cls.__new__(cls)
        for name, value in vars(layer).items():
            setattr(growing, name, value)  # also keys and values, which may be properties
        growing._memory = None
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
        if not self._may_append(key_states, value_states):
            return super().update(key_states, value_states)
        self._tensors = keys, values = self._append(key_states, value_states)
        return keys, values

    def _may_append(self, key_states: torch.Tensor, value_states: torch.Tensor) -> bool:
        """Whether new states are such that the memory can hold; the original's may not be."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        if self.keys.dtype == key_states.dtype and not key_states.requires_grad:
            return True
        self._memory = None
        return False

    def extend(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Make room for new tokens, which the caller has to write at the end.

        Returns:
            All keys and all values, with the room; None if the layer is empty.
        """
        keys, values = self.read()
        if keys is None or values is None or not keys.numel():
            return None
        self._tensors = grown = self._grown(keys, values, tokens)
        return grown

    def _append(
        self, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states after those that are kept, and return views of both."""
        tokens = key_states.shape[-2]
        keys, values = self._grown(key_states, value_states, tokens)
        begin = keys.shape[2] - tokens
        keys[:, :, begin:].copy_(key_states)
        values[:, :, begin:].copy_(value_states)
        return keys, values

    def _grown(
        self, like_keys: torch.Tensor, like_values: torch.Tensor, tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of what is kept, with room for tokens after it."""
        keys, values = self.read()
        assert keys is not None
        assert values is not None
        used = DynamicLayer.get_seq_length(self)
        total = used + tokens
        memory = self._memory
        begin = None if memory is None else _begin(memory, (keys, values), total)
        if memory is None or begin is None:
            begin = 0
            memory = self._memory = (
                _allocate(keys, like_keys, used, total),
                _allocate(values, like_values, used, total),
            )
        one, other = (part[:, :, begin : begin + total] for part in memory)
        return one, other

    def __copy__(self) -> Self:
        """Share the contents, but not the memory after them."""
        self.read()
        self._memory = None
        return type(self).of(self)

    def put(self, storage: Storage) -> None:
        """Replace the contents by what is in an engine's memory."""
        super().put(storage)
        self._memory = None

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens; what a caller holds of them is not overwritten later."""
        super().crop(tokens_to_remove)
        self._memory = None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Reorder the rows for beam search, in their memory; copy none if none changes place.

        They change in what a caller holds of them, too: in a search nobody does.
        """
        memory = self._memory
        if memory is None or self.storage is not None:
            super().reorder_cache(beam_idx)
            return
        keys, values = self.read()
        if keys is None or values is None or len(beam_idx) != len(keys):
            super().reorder_cache(beam_idx)
            return
        if _begin(memory, (keys, values), keys.shape[2]) is None:
            super().reorder_cache(beam_idx)
            return
        moved = (beam_idx != torch.arange(len(beam_idx))).nonzero().squeeze(1)
        if not len(moved):
            return
        for rows in (keys, values):
            # Of many rows that change places, copying them takes longer than copying all.
            if 2 * len(moved) < len(rows):
                rows.index_copy_(0, moved, rows.index_select(0, beam_idx[moved]))
            else:
                rows.copy_(rows.index_select(0, beam_idx))

    def reset(self) -> None:
        """Drop the contents."""
        super().reset()
        self._memory = None


class GrowingWindowLayer(GrowingLayer, DynamicSlidingWindowLayer):
    """The same for a sliding window: the used part moves on through the memory.

    At its end, which a window of tokens later reaches, the window is copied to new memory.
    """

    # Transformers' exporters replace them in the class while they trace, for all threads.
    _concatenate = DynamicSlidingWindowLayer.update
    get_mask_sizes = DynamicSlidingWindowLayer.get_mask_sizes

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the window, and return all that the new tokens see."""
        if not self._may_append(key_states, value_states):
            return self._concatenate(key_states, value_states)  # type: ignore[no-untyped-call]
        tokens, before = key_states.shape[-2], self.sliding_window - 1
        self.cumulative_length += tokens
        keys, values = self._append(key_states, value_states)
        self._tensors = self._select(keys, values)
        if self.record_past:  # until it is cropped
            return keys[:, :, -before - tokens :], values[:, :, -before - tokens :]
        return keys, values

    def put(self, storage: Storage) -> None:
        """Replace the contents by what is in an engine's memory: all tokens."""
        super().put(storage)
        self.cumulative_length = storage.tokens

    def _select(
        self, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.record_past:
            return keys, values
        last = slice(-self.sliding_window + 1, None)  # of a window of 1, Transformers keeps all
        return keys[:, :, last], values[:, :, last]


GROWING: dict[type[DynamicLayer], type[GrowingLayer]] = {
    DynamicLayer: GrowingLayer,
    DynamicSlidingWindowLayer: GrowingWindowLayer,
}

SUPPORTED = {*GROWING, *GROWING.values(), CrossLayer}


def _begin(
    memory: tuple[torch.Tensor, torch.Tensor], used: tuple[torch.Tensor, torch.Tensor], total: int
) -> int | None:
    """The token at which the used parts begin in memory.

    Returns:
        None if they are not views of it any more, or there is no room for ``total`` tokens.
    """
    begins = set()
    for part, view in zip(memory, used, strict=True):
        # Outside of inference mode its tensors can't be written to.
        if part.is_inference() != torch.is_inference_mode_enabled() or len(part) != len(view):
            return None
        begin = (view.data_ptr() - part.data_ptr()) // (part.element_size() * part.stride(2))
        if begin < 0 or begin + total > part.shape[2] or part.stride() != view.stride():
            return None
        begins.add(begin)
    return begins.pop() if len(begins) == 1 else None


def _allocate(kept: torch.Tensor, new: torch.Tensor, used: int, total: int) -> torch.Tensor:
    batch, heads, _, size = new.shape
    memory = new.new_empty(batch, heads, max(2 * used, total + SPARE), size)
    if used:
        memory[:, :, :used].copy_(kept)
    return memory


class Restorable:
    """The state of a cache before a call, to which it can be set back."""

    def __init__(self, cache: Growable) -> None:
        self._parts = _parts(cache)
        self._states = [[vars(layer).copy() for layer in part.layers] for part in self._parts]
        self._updated = cache.is_updated if isinstance(cache, EncoderDecoderCache) else {}
        self._was_updated = self._updated.copy()

    def restore(self) -> None:
        """Drop what the layers have got since then; they replace their tensors, or append."""
        for part, states in zip(self._parts, self._states, strict=True):
            del part.layers[len(states) :]
            for layer, state in zip(part.layers, states, strict=True):
                vars(layer).clear()
                vars(layer).update(state)
        self._updated.clear()
        self._updated.update(self._was_updated)


def layers_of(cache: Growable) -> list[DynamicLayer]:
    """The layers of a cache that ``unsupported`` has nothing against."""
    layers = (layer for part in _parts(cache) for layer in part.layers)
    return [layer for layer in layers if isinstance(layer, DynamicLayer)]


def bytes_of(cache: Growable) -> int:
    """Bytes of keys and values in a cache that ``let_grow`` was called with."""
    total = 0
    for layer in layers_of(cache):
        if isinstance(layer, StoringLayer) and layer.storage is not None:
            total += layer.storage.nbytes
        elif isinstance(layer, CrossLayer):
            total += layer.nbytes
        else:
            total += sum(t.nbytes for t in (layer.keys, layer.values) if t is not None)
    return total


def let_grow(cache: Growable) -> None:
    """Replace the layers of a cache by ones that grow, and that may use a storage.

    Layers for cross-attention, which don't grow, are replaced by those that are not copied in vain.
    """
    _replace(_parts(cache)[0], GROWING)
    if isinstance(cache, EncoderDecoderCache):
        _replace(cache.cross_attention_cache, {DynamicLayer: CrossLayer})


def cast_cross_layers(cache: object, dtype: torch.dtype) -> None:
    """Cast keys and values of cross-attention, to which an original adds none of its own."""
    if isinstance(cache, EncoderDecoderCache):
        for layer in layers_of(cache.cross_attention_cache):
            if layer.keys is not None and layer.values is not None:
                layer.keys, layer.values = layer.keys.to(dtype), layer.values.to(dtype)


def unsupported(cache: object) -> str:
    """Say why a stepper can't work with a cache; empty if it can."""
    if not isinstance(cache, Cache):
        return "there is no cache (use_cache=False)"
    for part in _parts(cache) if type(cache) is EncoderDecoderCache else [cache]:
        if type(part) is not DynamicCache or part.offloading:
            return f"the cache is of another kind ({type(part).__name__})"
        kinds = {type(layer) for layer in part.layers}
        if others := kinds - SUPPORTED:
            return f"the cache has layers of another kind ({others.pop().__name__})"
    return ""


def _parts(cache: Growable) -> list[DynamicCache]:
    """The cache of self-attention, and that of cross-attention if there is one."""
    if isinstance(cache, EncoderDecoderCache):
        return [cache.self_attention_cache, cache.cross_attention_cache]
    return [cache]


def _replace(
    cache: DynamicCache, kinds: Mapping[type[DynamicLayer], type[GrowingLayer] | type[CrossLayer]]
) -> None:
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = kinds[DynamicLayer]
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and type(layer) in kinds:
            cache.layers[index] = kinds[type(layer)].of(layer)
