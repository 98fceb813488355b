"""Keys and values of an encoder's output: computed once, and copied only where rows change."""

import torch
from transformers.cache_utils import DynamicLayer


class CrossLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer for cross-attention, whose rows are equal for all beams of a sequence.

    Beam search reorders the rows in each step. Beams take the place of beams of the same sequence,
    whose keys and values are the same ones: nothing is copied then.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sources: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, layer: DynamicLayer) -> "CrossLayer":
        """Take over the contents of another layer."""
        cross = cls()
        if layer.keys is not None and layer.values is not None:
            cross.lazy_initialization(layer.keys, layer.values)
            cross.keys, cross.values = layer.keys, layer.values
        return cross

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the rows, unless their contents stay the same."""
        if not self.get_seq_length():
            return
        sources = self._known_sources()
        reordered = sources[beam_idx]
        if torch.equal(reordered, sources):
            return
        super().reorder_cache(beam_idx)
        assert self.keys is not None
        self._sources = self.keys, reordered

    def _known_sources(self) -> torch.Tensor:
        """The first of the rows that are equal to each row, compared once; shape (rows,)."""
        assert self.keys is not None
        assert self.values is not None
        if self._sources is not None and self._sources[0] is self.keys:
            return self._sources[1]
        sources: list[int] = []
        for row in range(len(self.keys)):
            parts = (self.keys, self.values)
            same = row > 0 and all(torch.equal(part[row], part[row - 1]) for part in parts)
            sources.append(sources[-1] if same else row)
        self._sources = self.keys, torch.tensor(sources)
        return self._sources[1]
