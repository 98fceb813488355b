"""Consecutive layers of a decoder that reads an encoder's output, in one call of the kernels."""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

import cpuaccel
from cpuaccel import CacheLayer, SourceCacheLayer
from cpuaccel_plugins.decoding.layer import is_plain
from cpuaccel_plugins.decoding.source_layers.parts import SourceParts
from cpuaccel_plugins.decoding.structures import TYPES, CCached, CLayer, cached, seen

MOST_ROWS = 64
"""Most rows of activations that the kernels compute here."""


@dataclass
class Inputs:
    """What a layer reads.

    Attributes:
        hidden: shape (batch, tokens, hidden size).
        mask: of the decoder's own tokens, as Transformers makes it.
        source: the encoder's output, shape (batch, source tokens, its hidden size).
        source_mask: of it.
        bias: added to the scores of the decoder's own tokens, shape (1, heads, tokens, keys).
        cache: of the decoder.
    """

    hidden: torch.Tensor
    mask: object
    source: torch.Tensor | None
    source_mask: object
    bias: torch.Tensor | None
    cache: Cache | None


class SourceChain:
    """Computes layers together: all when the first one is called."""

    def __init__(self, layers: Sequence[SourceParts], library: ctypes.CDLL) -> None:
        """Take consecutive layers."""
        self._described = (CLayer * len(layers))(*(parts.described for parts in layers))
        self._layers = layers
        self._library = library
        self._local = threading.local()

    def __call__(self, index: int, inputs: Inputs) -> torch.Tensor | None:
        """Return the output of layer ``index``; None if it has to be computed by itself.

        The output of all layers but the last one is never read.
        """
        is_first = index == self._layers[0].index
        if is_first:
            self._local.output = self.compute(inputs)
        computed: torch.Tensor | None = getattr(self._local, "output", None)
        if index == self._layers[-1].index:
            self._local.output = None
        return computed if is_first or computed is inputs.hidden else None

    def compute(self, inputs: Inputs) -> torch.Tensor | None:
        """Compute the output of the last layer; None if the kernels can't, and nothing changed."""
        cache, hidden, source = inputs.cache, inputs.hidden, inputs.source
        batch, tokens, _ = hidden.shape
        if not isinstance(cache, EncoderDecoderCache) or source is None or len(source) != batch:
            return None
        if batch * tokens > MOST_ROWS or hidden.dtype not in TYPES:
            return None
        try:
            mask, source_mask = (
                _plain(mask, batch, tokens) for mask in (inputs.mask, inputs.source_mask)
            )
        except TypeError:
            return None
        own = cache.self_attention_cache
        if not all(_can_extend(own, parts, hidden) for parts in self._layers):
            return None
        self._project_source(cache, source)
        shared = [_shared(cache.cross_attention_cache, parts.index) for parts in self._layers]
        places = shared[0][2].contiguous()
        if len(places) != batch or any(keys.dtype not in TYPES for keys, _, _ in shared):
            return None
        if not all(torch.equal(others, places) for _, _, others in shared[1:]):
            return None  # somebody read some of the layers before rows changed places
        described: list[CCached] = []
        for parts, (*over_source, _) in zip(self._layers, shared, strict=True):
            extended = _extended(own, parts, hidden)
            described += map(cached, (*extended, *over_source))
        hidden, output = hidden.contiguous(), torch.empty_like(hidden)
        keys, source_keys = described[0].tokens, described[2].tokens
        bias = None if inputs.bias is None else inputs.bias.float().contiguous()
        self._library.cpuaccel_layers(
            *(self._described, len(self._layers), (CCached * len(described))(*described)),
            *(hidden.data_ptr(), output.data_ptr(), TYPES[hidden.dtype], batch, tokens),
            *(None, None, ctypes.byref(seen(mask, keys, bias=bias))),
            ctypes.byref(seen(source_mask, source_keys, places=places, is_causal=False)),
        )
        return output

    def _project_source(self, cache: EncoderDecoderCache, source: torch.Tensor) -> None:
        """Compute keys and values of an encoder's output, for equal rows once."""
        missing = [parts for parts in self._layers if not cache.is_updated.get(parts.index)]
        if not missing:
            return
        places = cpuaccel.equal_rows(source)
        distinct = (
            source[cpuaccel.first_rows(places)] if bool(places[-1] + 1 < len(source)) else source
        )
        for parts in missing:
            shape = (*distinct.shape[:2], parts.heads, parts.head_size)
            # Where activations are rounded to 8 bits, these need no more than bfloat16: half the
            # memory to read in each step.
            dtype = torch.bfloat16 if parts.key.has_few_bits else distinct.dtype
            keys, values = (
                linear(distinct).view(shape).transpose(1, 2).to(dtype).contiguous()
                for linear in (parts.key, parts.value)
            )
            _share(cache.cross_attention_cache, parts.index, keys, values, places, distinct.dtype)
            cache.is_updated[parts.index] = True


def _plain(mask: object, batch: int, tokens: int) -> torch.Tensor | None:
    """A mask of Booleans, or none.

    Raises:
        TypeError: it says something else.
    """
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor):
        raise TypeError("not a tensor")
    if mask.is_floating_point():
        seen_keys = mask == 0
        if bool((seen_keys | (mask <= torch.finfo(mask.dtype).min / 2)).all()):
            mask = seen_keys
    if not is_plain(mask) or mask.shape[0] not in (1, batch) or mask.shape[2] != tokens:
        raise TypeError("another mask")
    return mask


def _can_extend(cache: DynamicCache, parts: SourceParts, hidden: torch.Tensor) -> bool:
    """Whether a layer of the cache is one to which keys of these states can be added."""
    layer = cache.layers[parts.index] if parts.index < len(cache.layers) else None
    if layer is None:
        return cache.layer_class_to_replicate is not None
    if not isinstance(layer, DynamicLayer) or isinstance(layer, DynamicSlidingWindowLayer):
        return False
    if not layer.get_seq_length():
        return True
    keys = layer.keys
    assert keys is not None
    # An original of another precision may have replaced them.
    return keys.dtype == hidden.dtype and len(keys) == len(hidden)


def _extended(
    cache: DynamicCache, parts: SourceParts, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All keys and values of a layer, with room at the end for those of the hidden states."""
    batch, tokens, _ = hidden.shape
    if parts.index < len(cache.layers):
        layer = cache.layers[parts.index]
        grown = cast(CacheLayer, layer).extend(tokens) if hasattr(layer, "extend") else None
        if grown is not None:
            return grown
    room = hidden.new_zeros(batch, parts.heads, tokens, parts.head_size)
    return cache.update(room, room, parts.index)


def _share(
    cache: DynamicCache,
    index: int,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
    dtype: torch.dtype,
) -> None:
    """Let a layer of the cache hold keys and values that rows of the batch share."""
    while len(cache.layers) <= index and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    layer = cache.layers[index]
    if hasattr(layer, "share"):
        cast(SourceCacheLayer, layer).share(keys, values, places, dtype)
    else:
        cache.update(keys[places].to(dtype), values[places].to(dtype), index)


def _shared(cache: DynamicCache, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a layer of the cache holds of the encoder's output, and where each row's is."""
    layer = cache.layers[index]
    shared = cast(SourceCacheLayer, layer).shared() if hasattr(layer, "shared") else None
    if shared is not None:
        return shared
    assert isinstance(layer, DynamicLayer)
    keys, values = layer.keys, layer.values
    assert keys is not None
    assert values is not None
    return keys, values, torch.arange(len(keys))
