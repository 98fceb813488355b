"""Hooks that pack a batch before an encoder's first layer and unpack it after the last.

The embeddings run padded, because models compute positions in different ways. Inside the layers
only attention mixes tokens, so a batch becomes one sequence of its kept tokens, and attention
reads from ``current`` where each sequence starts.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from cpuaccel_plugins.bettertransformer import hidden_states
from cpuaccel_plugins.common.padding_markers import exporting, markers
from cpuaccel_plugins.common.token_packing import (
    kept_tokens,
    pack_tokens,
    packing_indices,
    unpack_tokens,
)

Pattern = Callable[[int, int, torch.Tensor, torch.Tensor], torch.Tensor]
"""A mask function of Transformers, with arguments (batch, head, query, key)."""


@dataclass(frozen=True)
class PaddingMask:
    """The mask that the layers get instead of a dense attention mask."""

    real: torch.Tensor | None  # (batch, length), bool; None if all tokens are real
    length: int  # with padding
    pattern: Pattern | None = None  # restricts attention further, such as to a window

    def dense(self) -> torch.Tensor | None:
        """The dense mask, shape (batch or 1, 1, query or 1, key), bool, True to attend."""
        mask = None if self.real is None else self.real[:, None, None, :]
        if self.pattern is None:
            return mask
        allowed = local_mask(self.pattern, torch.arange(self.length))[None, None]
        return allowed if mask is None else allowed & mask


class Span(NamedTuple):
    """The number of kept tokens of one sequence, of those to skip as keys, and their positions."""

    tokens: int
    skip: int
    positions: torch.Tensor


@dataclass
class Packing:
    """The state of one call; only ``real`` during export: ``padding_markers`` replace packing."""

    real: torch.Tensor | None = None  # (batch, length), bool; None until a mask has padding
    index: torch.Tensor | None = None  # (tokens,): the kept tokens in the flattened batch
    sources: torch.Tensor | None = None  # (batch * length,): the kept token to unpack
    counts: torch.Tensor | None = None  # (batch,): kept tokens
    skips: torch.Tensor | None = None  # (batch,): 1 if the first token is padding, else 0
    spans: list[Span] = field(default_factory=list)  # empty during tracing
    earlier_states: int = 0  # hidden states that were collected before this encoder's
    _packed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def begin(self, real: torch.Tensor) -> None:
        """Set the real tokens of this call."""
        self.real = real
        if exporting():
            return
        kept = kept_tokens(real)
        self.index, self.sources = packing_indices(kept)
        self.counts = kept.sum(dim=1)
        self.skips = (~real[:, 0]).long()
        if not torch.jit.is_tracing():
            positions = (self.index % real.shape[1]).split(self.counts.tolist())
            self.spans = [Span(len(p), skip, p) for p, skip in zip(positions, self.skips.tolist())]

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Pack shape (batch or 1, length, *) into (1, tokens, *)."""
        assert self.real is not None
        known = self._packed.get(id(tensor))
        if known is None and self.index is None:  # exporting
            known = self._packed[id(tensor)] = (tensor, markers()[0](tensor, self.real))
        if known is None:
            packed = pack_tokens(tensor, self.real.shape[0], self.index)
            # The reference to the tensor keeps its id unique.
            known = self._packed[id(tensor)] = (tensor, packed)
        return known[1]

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """Unpack shape (1, tokens, *) into (batch, length, *)."""
        assert self.real is not None
        if self.sources is None:  # exporting
            marked: torch.Tensor = markers()[1](packed, self.real)
            return marked
        batch, length = self.real.shape
        return unpack_tokens(packed, (batch, length), self.sources)

    def unpack_state(self, state: torch.Tensor) -> torch.Tensor:
        """Unpack a hidden state, unless it is from before the first layer."""
        tokens = None if self.index is None else self.index.numel()
        is_packed = tokens is None or tuple(state.shape[:2]) == (1, tokens)
        return self.unpack(state) if state.dim() == 3 and is_packed else state


current: ContextVar[Packing | None] = ContextVar("packing", default=None)
"""The packing of the current encoder call in this thread."""


def local_mask(pattern: Pattern, positions: torch.Tensor) -> torch.Tensor:
    """Evaluate a pattern for one sequence's positions; shape (tokens, tokens), bool."""
    return pattern(0, 0, positions[:, None], positions[None, :])


def install(container: torch.nn.Module, layers: list[torch.nn.Module]) -> None:
    """Add the hooks to an encoder and its layers."""
    container.register_forward_pre_hook(_enter)
    container.register_forward_hook(_leave)
    for layer in layers:
        layer.register_forward_pre_hook(_pack_inputs, with_kwargs=True)


def _enter(container: torch.nn.Module, args: tuple[object, ...]) -> None:
    current.set(Packing(earlier_states=len(hidden_states.collected())))


def _pack_inputs(
    layer: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]] | None:
    packing = current.get()
    values = [*args, *kwargs.values()]
    masks = [value for value in values if isinstance(value, PaddingMask)]
    if packing is None or not masks or masks[0].real is None:
        return None
    if packing.real is None:  # the first layer: the others get packed hidden states
        packing.begin(masks[0].real)
        hidden = values[0]
        assert isinstance(hidden, torch.Tensor)
        values[0] = packing.pack(hidden)
    packed = [values[0], *(_pack_all(packing, value) for value in values[1:])]
    return tuple(packed[: len(args)]), dict(zip(kwargs, packed[len(args) :]))


def _pack_all(packing: Packing, value: object) -> object:
    if isinstance(value, torch.Tensor) and value.dim() > 2:
        return packing.pack(value)
    if isinstance(value, tuple):
        return tuple(_pack_all(packing, member) for member in value)
    return value


def _leave(container: torch.nn.Module, args: tuple[object, ...], output: object) -> object:
    packing = current.get()
    current.set(None)
    if packing is None or packing.real is None:
        return output
    states = hidden_states.collected()
    for index in range(packing.earlier_states, len(states)):
        if (state := states[index]) is not None:
            states[index] = packing.unpack_state(state)
    if isinstance(output, torch.Tensor):
        return packing.unpack(output)
    if isinstance(output, Mapping):
        unpacked = {n: _unpack_one(packing, value) for n, value in output.items()}
        return type(output)(**unpacked)
    assert isinstance(output, tuple)
    return tuple(_unpack_one(packing, value) for value in output)


def _unpack_one(packing: Packing, value: object) -> object:
    if isinstance(value, tuple):  # of hidden states
        return tuple(
            packing.unpack_state(state) if isinstance(state, torch.Tensor) else state
            for state in value
        )
    return packing.unpack(value) if isinstance(value, torch.Tensor) else value
