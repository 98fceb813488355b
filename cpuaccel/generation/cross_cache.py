"""Keys and values of an encoder's output: computed once, and copied only where rows change."""

import torch
from transformers.cache_utils import DynamicLayer

from cpuaccel.plugin.equal_rows import equal_rows, first_rows


class CrossLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer for cross-attention, whose rows are equal for all beams of a sequence.

    A stepper may hold one row for each sequence by ``share``; then nothing is copied where rows
    change places. Reading ``keys`` or ``values`` gives each row of the batch a copy again. Also
    then nothing is copied where beams take the place of beams of the same sequence.
    """

    def __init__(self) -> None:
        self._held: tuple[torch.Tensor | None, torch.Tensor | None] = None, None
        self._places: torch.Tensor | None = None
        self._numbers: tuple[torch.Tensor, torch.Tensor] | None = None
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, layer: DynamicLayer) -> "CrossLayer":
        """Take over the contents of another layer."""
        cross = cls()
        if layer.keys is not None and layer.values is not None:
            cross.lazy_initialization(layer.keys, layer.values)
            cross.keys, cross.values = layer.keys, layer.values
        return cross

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
        self.lazy_initialization(keys, values)
        self.dtype = keys.dtype if dtype is None else dtype
        self._held, self._places = (keys, values), places

    def shared(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Return what ``share`` takes, which is held from now on; None if the layer is empty."""
        keys, values = self._held
        if keys is None or values is None or not keys.numel():
            return None
        if self._places is None:
            numbers = self._known_numbers()
            rows = first_rows(numbers)
            if len(rows) < len(keys):
                keys, values = keys[rows], values[rows]
            places = torch.searchsorted(numbers[rows], numbers)
            self._held, self._places = (keys, values), places
        return keys, values, self._places

    @property
    def keys(self) -> torch.Tensor | None:
        """As in ``DynamicLayer``."""
        return self._rows()[0]

    @keys.setter
    def keys(self, keys: torch.Tensor | None) -> None:
        self._held = keys, self._rows()[1]

    @property
    def values(self) -> torch.Tensor | None:
        """As in ``DynamicLayer``."""
        return self._rows()[1]

    @values.setter
    def values(self, values: torch.Tensor | None) -> None:
        self._held = self._rows()[0], values

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(tensor.nbytes for tensor in self._held if tensor is not None)

    def get_seq_length(self) -> int:
        """As in ``DynamicLayer``."""
        keys, _ = self._held
        return keys.shape[-2] if keys is not None and keys.numel() else 0

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the rows, unless their contents stay the same."""
        if not self.get_seq_length():
            return
        if self._places is not None:
            self._places = self._places[beam_idx]
            return
        numbers = self._known_numbers()
        reordered = numbers[beam_idx]
        if torch.equal(reordered, numbers):
            return
        super().reorder_cache(beam_idx)
        assert self.keys is not None
        self._numbers = self.keys, reordered

    def _rows(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Keys and values of each row of the batch, which are held from now on."""
        if self._places is not None:
            places, self._places = self._places, None
            keys, values = self._held
            assert keys is not None
            assert values is not None
            keys, values = (part[places].to(self.dtype) for part in (keys, values))
            self._held, self._numbers = (keys, values), (keys, places)
        return self._held

    def _known_numbers(self) -> torch.Tensor:
        """Numbers of the rows, compared once: equal ones have the same; shape (rows,)."""
        keys, values = self._rows()
        assert keys is not None
        assert values is not None
        if self._numbers is None or self._numbers[0] is not keys:
            self._numbers = keys, equal_rows(keys, values)
        return self._numbers[1]
