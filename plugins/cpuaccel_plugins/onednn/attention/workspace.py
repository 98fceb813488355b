"""Memory that attention computes in: cached for each thread, across layers and calls.

Making a view of a tensor takes a microsecond, or ten after weights have evicted torch's code from
the caches. So the views for a sequence are made once.
"""

import threading
from typing import NamedTuple

import torch

SCORE_BYTES = 8 * 2**20
"""Most scores computed at once, so that they stay in the processor's caches."""

MOST_CACHED_BYTES = 64 * 2**20
"""Most memory to cache: attention that needs more takes so long that allocation does not matter."""

MOST_CACHED_SIZES = 64
"""Most sizes of sequences whose views are cached."""

_ALIGNMENT = 64
"""Bytes, as torch's own allocations are aligned."""


class Sizes(NamedTuple):
    """The sizes that a workspace depends on."""

    heads: int
    queries: int
    keys: int
    size: int
    dtype: torch.dtype

    @property
    def operand_bytes(self) -> int:
        """Bytes of queries, keys and values."""
        numbers = self.heads * self.size * (self.queries + 2 * self.keys)
        return -(-numbers * self.dtype.itemsize // _ALIGNMENT) * _ALIGNMENT

    @property
    def heads_at_once(self) -> int:
        """Number of heads whose scores are computed at once."""
        one = self.queries * self.keys * self.dtype.itemsize
        return max(1, min(self.heads, SCORE_BYTES // one))

    @property
    def bytes(self) -> int:
        """Bytes of operands and scores."""
        scores = self.heads_at_once * self.queries * self.keys * self.dtype.itemsize
        return self.operand_bytes + scores


class Part(NamedTuple):
    """The tensors for computing some heads."""

    heads: slice
    whole: bool  # all heads
    query: torch.Tensor  # (heads, queries, head size)
    transposed_key: torch.Tensor  # (heads, head size, keys)
    value: torch.Tensor  # (heads, keys, head size)
    scores: torch.Tensor  # (heads, queries, keys)


class Workspace:
    """Operands and scores of a sequence in uint8 memory, each contiguous.

    Products of operands that are not contiguous copy them head by head, which took a tenth of
    their time.
    """

    def __init__(self, sizes: Sizes, memory: torch.Tensor) -> None:
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
        scores = scores.view(sizes.heads_at_once, queries, keys)
        query, key, value = self._query[0], self._key[0], self._value[0]
        self.parts = []
        for begin in range(0, heads, sizes.heads_at_once):
            own = slice(begin, min(begin + sizes.heads_at_once, heads))
            self.parts.append(
                Part(
                    own,
                    sizes.heads_at_once == heads,
                    query[own],
                    key[own].transpose(1, 2),
                    value[own],
                    scores[: own.stop - own.start],
                )
            )

    def fill(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy operands here, shape (1, heads, queries or keys, head size), any strides."""
        self._query.copy_(query)
        self._key.copy_(key)
        self._value.copy_(value)

    def fill_jointly(self, joint: torch.Tensor) -> None:
        """Copy joint operands here, shape (1, tokens, 3, heads, head size)."""
        assert self._joint is not None
        self._joint.copy_(joint)


class _WorkspaceCache(threading.local):
    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._workspaces: dict[Sizes, Workspace] = {}

    def get(self, sizes: Sizes) -> Workspace:
        workspace = self._workspaces.get(sizes)
        if workspace is None:
            # A tensor made in inference mode can't be written to outside of it.
            with torch.inference_mode(False):
                workspace = self._make(sizes)
        return workspace

    def _make(self, sizes: Sizes) -> Workspace:
        needed = sizes.bytes
        if needed > MOST_CACHED_BYTES:
            return Workspace(sizes, torch.empty(needed, dtype=torch.uint8))
        if needed > len(self._memory) or len(self._workspaces) == MOST_CACHED_SIZES:
            self._workspaces.clear()
        if needed > len(self._memory):
            self._memory = torch.empty(needed, dtype=torch.uint8)
        workspace = self._workspaces[sizes] = Workspace(sizes, self._memory)
        return workspace


_cache = _WorkspaceCache()


def workspace(sizes: Sizes) -> Workspace:
    """The workspace of this thread for a sequence; valid until the thread asks for another one."""
    return _cache.get(sizes)
