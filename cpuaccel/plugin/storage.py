"""The contract of a memory in which an engine has keys and values of its own."""

from collections.abc import Sequence
from typing import Protocol

import torch


class Storage(Protocol):
    """The keys and values of one layer in an engine's memory, at one point of a text."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that ``read`` returns."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that a step reads of it."""
        ...

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy the keys and values of all tokens, shape (batch, heads, tokens, head size)."""
        ...

    def reorder(self, rows: Sequence[int]) -> "Storage":
        """Return a storage with these rows of the batch; nothing has to be moved yet."""
        ...


class CacheLayer(Protocol):
    """A layer of the cache that a stepper gets."""

    keys: torch.Tensor | None
    values: torch.Tensor | None

    @property
    def storage(self) -> Storage | None:
        """Where the contents are; None if they are in ``keys`` and ``values``."""
        ...

    def put(self, storage: Storage) -> None:
        """Replace the contents by what is in an engine's memory."""
        ...

    def extend(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Make room for new tokens, which the caller has to write at the end.

        Returns:
            All keys and all values, with the room, shape (batch, heads, tokens, head size); None if
            the layer is empty.
        """
        ...

    def get_seq_length(self) -> int:
        """Number of tokens, also of those that have left a sliding window."""
        ...


class SourceCacheLayer(Protocol):
    """A layer of the cache for keys and values of an encoder's output."""

    def share(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        places: torch.Tensor,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Replace the contents by rows that several rows of the batch share.

        Args:
            keys: shape (sequences, heads, tokens, head size).
            values: likewise.
            places: of each row of the batch in them, int64, shape (batch,).
            dtype: of the copies that ``keys`` and ``values`` give; by default that of ``keys``.
        """
        ...

    def shared(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Return what ``share`` takes, which is held from now on; None if the layer is empty."""
        ...
