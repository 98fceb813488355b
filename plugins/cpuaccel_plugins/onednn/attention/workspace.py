"""The memory that attention computes in: a thread's own, kept from layer to layer and call to call.

A view of a tensor takes a microsecond, and ten where the weights that passed have driven torch's
code out of the caches. Those that a sequence's attention needs are therefore made once.
"""

import threading
from typing import NamedTuple

import torch

SCORE_BYTES = 8 * 2**20
"""Scores computed at once at most: they are to stay in the processor's caches."""

KEPT_BYTES = 64 * 2**20
"""Memory kept at most: attention that needs more takes so long that making it anew is nothing."""

KEPT_SIZES = 64
"""Kinds of sequences whose views are kept at most."""

_ALIGNMENT = 64
"""Bytes, as torch's own allocations are aligned."""


class Sizes(NamedTuple):
    """What the memory of one sequence depends on."""

    heads: int
    queries: int
    keys: int
    size: int
    dtype: torch.dtype

    @property
    def operand_bytes(self) -> int:
        """What queries, keys and values take."""
        numbers = self.heads * self.size * (self.queries + 2 * self.keys)
        return -(-numbers * self.dtype.itemsize // _ALIGNMENT) * _ALIGNMENT

    @property
    def together(self) -> int:
        """Heads whose scores are computed at once."""
        one = self.queries * self.keys * self.dtype.itemsize
        return max(1, min(self.heads, SCORE_BYTES // one))

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        scores = self.together * self.queries * self.keys * self.dtype.itemsize
        return self.operand_bytes + scores


class Part(NamedTuple):
    """Of some heads, what their products take and where their scores go.

    Attributes:
        heads: which ones.
        whole: whether they are all.
        query: shape (heads, queries, head size).
        transposed_key: shape (heads, head size, keys).
        value: shape (heads, keys, head size).
        scores: shape (heads, queries, keys).
    """

    heads: slice
    whole: bool
    query: torch.Tensor
    transposed_key: torch.Tensor
    value: torch.Tensor
    scores: torch.Tensor


class Workspace:
    """Operands and scores of one sequence, each contiguous, in one piece of memory.

    Products would copy head by head what lies scattered, which took a tenth of their time.
    """

    def __init__(self, sizes: Sizes, memory: torch.Tensor) -> None:
        """Lay them out.

        Args:
            sizes: of the sequence.
            memory: uint8, of at least ``sizes.bytes``.
        """
        self.sizes = sizes
        heads, queries, keys, size, dtype = sizes
        operands = memory[: sizes.operand_bytes].view(dtype)
        first = heads * queries * size
        whole = first + 2 * heads * keys * size
        self._query = operands[:first].view(1, heads, queries, size)
        self._key, self._value = operands[first:whole].view(2, 1, heads, keys, size)
        self._joint = None
        if queries == keys:
            self._joint = operands[:whole].view(1, 3, heads, keys, size).permute(0, 3, 1, 2, 4)
        scores = memory[sizes.operand_bytes : sizes.bytes].view(dtype)
        scores = scores.view(sizes.together, queries, keys)
        query, key, value = self._query[0], self._key[0], self._value[0]
        self.parts = []
        for begin in range(0, heads, sizes.together):
            own = slice(begin, min(begin + sizes.together, heads))
            self.parts.append(
                Part(
                    own,
                    sizes.together == heads,
                    query[own],
                    key[own].transpose(1, 2),
                    value[own],
                    scores[: own.stop - own.start],
                )
            )

    def fill(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy operands, shape (1, heads, queries or keys, head size), any strides."""
        self._query.copy_(query)
        self._key.copy_(key)
        self._value.copy_(value)

    def fill_jointly(self, joint: torch.Tensor) -> None:
        """Copy operands that lie in one, shape (1, tokens, 3, heads, head size), at once."""
        assert self._joint is not None
        self._joint.copy_(joint)


class _Kept(threading.local):
    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._known: dict[Sizes, Workspace] = {}

    def of(self, sizes: Sizes) -> Workspace:
        found = self._known.get(sizes)
        if found is None:
            # What is made in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                found = self._make(sizes)
        return found

    def _make(self, sizes: Sizes) -> Workspace:
        needed = sizes.bytes
        if needed > KEPT_BYTES:
            return Workspace(sizes, torch.empty(needed, dtype=torch.uint8))
        if needed > len(self._memory) or len(self._known) == KEPT_SIZES:
            self._known.clear()
        if needed > len(self._memory):
            self._memory = torch.empty(needed, dtype=torch.uint8)
        found = self._known[sizes] = Workspace(sizes, self._memory)
        return found


_kept = _Kept()


def workspace(sizes: Sizes) -> Workspace:
    """Memory for a sequence, until this thread asks for the next one's."""
    return _kept.of(sizes)
