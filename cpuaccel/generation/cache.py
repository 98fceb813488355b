"""A cache that grows without copying its contents at each token."""

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

SPARE = 64
"""Least number of tokens that new memory has room for."""

Growable = DynamicCache | EncoderDecoderCache
"""The caches that ``unsupported`` has nothing against."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
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
        copied = type(self)()
        copied.__dict__.update(self.__dict__)
        copied._memory = self._memory = None
        return copied

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens; what a caller holds of them is not overwritten later."""
        super().crop(tokens_to_remove)
        self._memory = None

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the rows for beam search; copy only those that change places.

        They change in what a caller holds of them, too: in a search nobody does.
        """
        memory, used = self._memory, self.get_seq_length()
        if memory is None or self.keys is None or self.values is None:
            return super().reorder_cache(beam_idx)
        if len(beam_idx) != len(self.keys) or not _has_room(memory, (self.keys, self.values), used):
            return super().reorder_cache(beam_idx)
        moved = (beam_idx != torch.arange(len(beam_idx))).nonzero().squeeze(1)
        if len(moved):
            for part in memory:
                rows = part[:, :, :used]
                rows.index_copy_(0, moved, rows.index_select(0, beam_idx[moved]))
        return None

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


def let_grow(cache: Growable) -> None:
    """Replace the layers of a cache that concatenate by layers that grow, with their contents.

    Layers for cross-attention, which don't grow, are replaced by those that are not copied in vain.
    """
    _replace(_parts(cache)[0], GrowingLayer)
    if isinstance(cache, EncoderDecoderCache):
        _replace(cache.cross_attention_cache, CrossLayer)


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
        others = kinds - {DynamicLayer, GrowingLayer, DynamicSlidingWindowLayer, CrossLayer}
        if others:
            return f"the cache has layers of another kind ({others.pop().__name__})"
    return ""


def _parts(cache: Growable) -> list[DynamicCache]:
    """The cache of self-attention, and that of cross-attention if there is one."""
    if isinstance(cache, EncoderDecoderCache):
        return [cache.self_attention_cache, cache.cross_attention_cache]
    return [cache]


def _replace(cache: DynamicCache, kind: type[GrowingLayer] | type[CrossLayer]) -> None:
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = kind
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = kind.of(layer)
