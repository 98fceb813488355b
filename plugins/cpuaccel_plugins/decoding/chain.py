"""All layers of a decoder in one call of the kernels."""

import ctypes
import threading
from collections.abc import Sequence
from typing import cast

import torch
from torch.nn.modules.module import _has_any_global_hook
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from cpuaccel import CacheLayer
from cpuaccel_plugins.decoding.layer import Positions
from cpuaccel_plugins.decoding.parts import Parts
from cpuaccel_plugins.decoding.structures import (
    TYPES,
    CCached,
    CFeedForward,
    CLayer,
    cached,
    seen,
)


class Chain:
    """Computes all layers when the first one is called; the others then return what they get."""

    def __init__(
        self,
        layers: Sequence[Parts],
        config: PreTrainedConfig,
        library: ctypes.CDLL,
        positions: Positions,
    ) -> None:
        """Take the layers of a model, for which ``can_be_chained`` is true, in order."""
        self._layers = (CLayer * len(layers))(*map(_described, layers))
        self._kept = layers  # what the structures point to
        self._config = config
        self._library = library
        self._positions = positions
        self._local = threading.local()

    def __call__(
        self,
        index: int,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
        cache: Cache,
    ) -> torch.Tensor | None:
        """Return the output of layer ``index``; None if it has to be computed by itself.

        The output of all layers but the last one is never read.
        """
        if index == 0:
            self._local.output = self._compute(hidden, mask, positions, cache)
        computed: torch.Tensor | None = getattr(self._local, "output", None)
        if index == len(self._layers) - 1:
            self._local.output = None
        return computed if index == 0 or computed is hidden else None

    def _compute(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
        cache: Cache,
    ) -> torch.Tensor | None:
        layers = [layer for layer in cache.layers if _can_extend(layer, hidden.dtype)]
        if not len(layers) == len(cache.layers) == len(self._layers):
            return None
        if self._config.num_hidden_layers != len(layers) or _has_any_global_hook():  # type: ignore[no-untyped-call]
            return None  # an early exit, or a hook that reads what is between layers
        hidden = hidden.contiguous()
        batch, tokens, _ = hidden.shape
        described: list[CCached] = []
        for layer in layers:
            extended = cast(CacheLayer, layer).extend(tokens)
            assert extended is not None
            described += map(cached, extended)
        cos, sin = (self._positions.rows(angles, batch) for angles in positions)
        output = torch.empty_like(hidden)
        self._library.cpuaccel_layers(
            *(self._layers, len(layers), (CCached * len(described))(*described)),
            *(hidden.data_ptr(), output.data_ptr(), TYPES[hidden.dtype], batch, tokens),
            *(cos.data_ptr(), sin.data_ptr(), ctypes.byref(seen(mask, described[0].tokens)), None),
        )
        return output


def can_be_chained(
    modules: Sequence[torch.nn.Module], layers: Sequence[Parts], config: PreTrainedConfig
) -> bool:
    """Whether layers are all of a model, and get the same mask and positions."""
    kinds = {*(getattr(config, "layer_types", None) or ["full_attention"])}
    return (
        kinds == {"full_attention"}
        and [parts.index for parts in layers] == [*range(config.num_hidden_layers)]
        and all(isinstance(parts.feed_forward, CFeedForward) for parts in layers)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    )


def _can_extend(layer: object, dtype: torch.dtype) -> bool:
    return (
        isinstance(layer, DynamicLayer)
        and not isinstance(layer, DynamicSlidingWindowLayer)
        and hasattr(layer, "extend")
        and layer.get_seq_length() > 0
        and layer.keys is not None
        and layer.keys.dtype == dtype  # an original of another precision may have replaced them
    )


def _described(parts: Parts) -> CLayer:
    assert isinstance(parts.feed_forward, CFeedForward)
    return CLayer(
        ctypes.pointer(parts.projections),
        ctypes.pointer(parts.attention),
        None,
        None,
        ctypes.pointer(parts.feed_forward),
    )
