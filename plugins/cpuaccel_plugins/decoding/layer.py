"""Decoder layers of Llama's kind, computed by three kernels where rows are few.

A layer with the parts that parts.py finds is computed by the kernels if these and the layer's own
code give the same results; others run as they are.
"""

import ctypes
import threading
from collections.abc import Callable

import torch
from transformers.cache_utils import Cache, DynamicLayer

from cpuaccel_plugins.decoding.agreement import ROUNDED, Checked
from cpuaccel_plugins.decoding.linear import MOST_ROWS
from cpuaccel_plugins.decoding.packed import many_rows_in_integers
from cpuaccel_plugins.decoding.parts import Parts
from cpuaccel_plugins.decoding.structures import TYPES, CFeedForward, cached, seen


class Positions(threading.local):
    """Cosines and sines of one step in float32, computed once for all layers."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def rows(self, angles: torch.Tensor, batch: int) -> torch.Tensor:
        """Expand to float32 of shape (batch, tokens, head size)."""
        source, expanded = self._known.get(id(angles), (None, None))
        if source is not angles or expanded is None or len(expanded) != batch:
            expanded = angles.float().expand(batch, -1, -1).contiguous()
            if len(self._known) > 8:
                self._known.clear()
            self._known[id(angles)] = angles, expanded
        return expanded


Chained = Callable[
    [int, torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, torch.Tensor], Cache],
    torch.Tensor | None,
]
"""Computes a layer together with others, or returns None; see chain.py."""


class FusedForward(Checked):
    """The forward of a layer: by the kernels, or by the layer's own code.

    Attributes:
        parts: of the layer.
        chain: computes all layers at once.
    """

    chain: Chained | None = None

    def __init__(
        self, layer: torch.nn.Module, parts: Parts, library: ctypes.CDLL, positions: Positions
    ) -> None:
        super().__init__(f"layer {parts.index}")
        self._plain: Callable[..., torch.Tensor] = layer.forward
        self.parts = parts
        self._library = library
        self._positions = positions

    def __call__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """Take and return what the layer's own forward does."""
        if (
            position_embeddings is not None
            and past_key_values is not None
            and self._can_compute(hidden_states, attention_mask, position_embeddings)
        ):
            call = (hidden_states, attention_mask, position_embeddings, past_key_values)
            if self.chain is not None:
                output = self.chain(self.parts.index, *call)
                if output is not None:
                    return output
            output = self._compute(*call)
            if not self.checking:
                return output
            layer = past_key_values.layers[self.parts.index]
            assert isinstance(layer, DynamicLayer)
            layer.crop(-hidden_states.shape[1])
        else:
            output = None
        plain = self._plain(
            hidden_states,
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            past_key_values=past_key_values,
            **kwargs,
        )
        if output is not None:
            self.compare(output, plain, ROUNDED if self.parts.has_few_bits else 0.0)
        return plain

    def _computes_many(self) -> bool:
        return self.parts.is_packed and many_rows_in_integers(self._library)

    def _can_compute(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
    ) -> bool:
        return (
            self.agrees
            and (hidden.shape[0] * hidden.shape[1] <= MOST_ROWS or self._computes_many())
            and (mask is None or is_plain(mask))
            and positions[0].shape[-1] == self.parts.projections.head_size
        )

    def _compute(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
        cache: Cache,
    ) -> torch.Tensor:
        parts, library = self.parts, self._library
        batch, tokens, _ = hidden.shape
        heads, size = parts.attention.heads, parts.projections.head_size
        rows, kind = batch * tokens, TYPES[hidden.dtype]
        hidden = hidden.contiguous()
        cos, sin = (self._positions.rows(angles, batch) for angles in positions)
        query = torch.empty(batch, tokens, heads.heads, size)
        key, value = hidden.new_empty(2, batch, tokens, heads.key_heads, size).unbind()
        library.cpuaccel_project(
            ctypes.byref(parts.projections),
            *(hidden.data_ptr(), kind, rows, cos.data_ptr(), sin.data_ptr()),
            *(query.data_ptr(), key.data_ptr(), value.data_ptr()),
        )
        keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), parts.index)
        if keys.stride(-1) != 1 or values.stride(-1) != 1:
            keys, values = keys.contiguous(), values.contiguous()
        attended = torch.empty_like(hidden)
        library.cpuaccel_attend(
            ctypes.byref(parts.attention),
            *(query.data_ptr(), ctypes.byref(cached(keys)), ctypes.byref(cached(values))),
            ctypes.byref(seen(mask, keys.shape[2])),
            *(batch, tokens, hidden.data_ptr(), attended.data_ptr(), kind),
        )
        if not isinstance(parts.feed_forward, CFeedForward):
            return attended + parts.feed_forward(attended)
        output = torch.empty_like(hidden)
        library.cpuaccel_feed_forward(
            ctypes.byref(parts.feed_forward),
            *(attended.data_ptr(), output.data_ptr(), kind, rows),
        )
        return output


def is_plain(mask: object) -> bool:
    """Whether a mask is one of Booleans for all heads, true where a key is seen."""
    return (
        isinstance(mask, torch.Tensor)
        and mask.dtype == torch.bool
        and mask.dim() == 4
        and mask.shape[1] == 1
        and mask.stride(-1) == 1
    )
