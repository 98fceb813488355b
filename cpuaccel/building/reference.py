"""The original model: the reference that outputs are compared with, and the fallback."""

from collections.abc import Mapping

import torch

from cpuaccel.model.copying import shared_copy
from cpuaccel.model.released_weights import ReleasedWeights
from cpuaccel.model.signature import Binder
from cpuaccel.model.weights import WatchedWeights


class Reference:
    """The original model in eval mode, with its weights watched.

    Attributes:
        original: the caller's model.
        eager: the original in eval mode: itself if it may be changed in place, otherwise a copy
            that shares its weights.
        binder: calls the original.
        weights: detects changed weights.
        released: weights of the original that only a variant holds.
    """

    def __init__(self, original: torch.nn.Module, *, inplace: bool) -> None:
        self.original = original
        self.binder = Binder(original)
        self.weights = WatchedWeights(original)
        self.released = ReleasedWeights(original, self.weights.accept_moved)
        self._inplace = inplace
        self.reset()

    def reset(self) -> None:
        """Take the original as it is now."""
        self.released.restore()
        self.eager = self.original.eval() if self._inplace else shared_copy(self.original)
        self.weights.reset()

    def run(self, inputs: Mapping[str, object]) -> object:
        """Call the original in eval mode."""
        self.released.restore_original()
        return self.binder.call(self.eager, inputs)

    @property
    def floating_dtypes(self) -> set[torch.dtype]:
        """The dtypes of the floating-point parameters."""
        return {p.dtype for p in self.eager.parameters() if p.is_floating_point()}
