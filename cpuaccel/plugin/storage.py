"""The contract of a memory in which an engine has a layer's keys and values."""

from collections.abc import Sequence
from typing import Protocol

import torch


class Storage(Protocol):
    """The keys and values of one layer in an engine's memory, at one point of a text.

    Attributes:
        tokens: number of tokens.
        dtype: of the tensors that ``read`` returns.
        nbytes: bytes that a step reads of it.
    """

    @property
    def tokens(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def nbytes(self) -> int: ...

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy the keys and values of all tokens, shape (batch, heads, tokens, head size)."""
        ...

    def reorder(self, rows: Sequence[int]) -> "Storage":
        """Return a storage with these rows of the batch; nothing has to be moved yet."""
        ...
