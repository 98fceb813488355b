"""Cache layers whose contents may be in an engine's memory until somebody else needs them."""

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from cpuaccel.plugin.storage import Storage


class StoringLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Reads ``keys`` and ``values`` from a storage when they are needed, and lets go of it.

    From then on the tensors are what the layer holds, so no change of them is missed.
    """

    _storage: Storage | None = None
    _tensors: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)

    @property
    def storage(self) -> Storage | None:
        """Where the contents are; None if they are in ``keys`` and ``values``."""
        return self._storage

    def put(self, storage: Storage) -> None:
        """Replace the contents by what is in an engine's memory."""
        self._tensors = None, None
        self.is_initialized = True
        self.dtype, self.device = storage.dtype, torch.device("cpu")
        self._storage = storage

    @property
    def keys(self) -> torch.Tensor | None:
        """As in ``DynamicLayer``."""
        return self.read()[0]

    @keys.setter
    def keys(self, keys: torch.Tensor | None) -> None:
        self._tensors = keys, self.read()[1]

    @property
    def values(self) -> torch.Tensor | None:
        """As in ``DynamicLayer``."""
        return self.read()[1]

    @values.setter
    def values(self, values: torch.Tensor | None) -> None:
        self._tensors = self.read()[0], values

    def read(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return ``keys`` and ``values``, and let go of the storage."""
        if self._storage is not None:
            self._tensors = self._select(*self._storage.read())
            self._storage = None
        return self._tensors

    def _select(
        self, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Select what a layer of this kind holds of all keys and values."""
        return keys, values

    def get_seq_length(self) -> int:
        """As in ``DynamicLayer``."""
        return super().get_seq_length() if self._storage is None else self._storage.tokens

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """As in ``DynamicLayer``."""
        if self._storage is None:
            super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        else:
            self._storage = self._storage.reorder(beam_idx.tolist())

    def reset(self) -> None:
        """Drop the contents."""
        self._storage = None
        super().reset()

    def __getstate__(self) -> dict[str, object]:
        """Give a copy tensors of its own: the engine goes on with its memory."""
        self.read()
        return vars(self).copy()


class SlidingLayer(StoringLayer, DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """A layer of sliding attention; its storage holds all tokens, and its tensors the last ones."""

    # Transformers' exporters replace them in the class while they trace, for all threads.
    update = DynamicSlidingWindowLayer.update
    get_mask_sizes = DynamicSlidingWindowLayer.get_mask_sizes

    @classmethod
    def of(cls, layer: DynamicSlidingWindowLayer) -> "SlidingLayer":
        """Take over the contents of another layer."""
        sliding = cls(layer.sliding_window)
        for name, value in vars(layer).items():
            setattr(sliding, name, value)
        return sliding

    def put(self, storage: Storage) -> None:
        """Replace the contents by what is in an engine's memory."""
        super().put(storage)
        self.cumulative_length = storage.tokens

    def _select(
        self, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.record_past:
            return keys, values
        last = slice(-self.sliding_window + 1, None)
        return keys[:, :, last], values[:, :, last]

    def get_seq_length(self) -> int:
        """As in ``DynamicSlidingWindowLayer``."""
        return self.cumulative_length
