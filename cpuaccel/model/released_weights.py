"""Releasing weights that a backend keeps in its own layout, and restoring them."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cpuaccel.errors import ModelError

logger = logging.getLogger("cpuaccel")

Restore = Callable[[], torch.Tensor]
"""Rebuilds a weight, bit for bit."""

Release = Callable[[torch.Tensor, Restore], bool]
"""Frees a weight and returns whether it did. See ``ReleasedWeights.release``."""


@dataclass(frozen=True)
class _Released:
    parameter: torch.nn.Parameter
    restore: Restore


class ReleasedWeights:
    """The weights of one model that are freed because an optimized model keeps them packed.

    While any is released, the model's parameters are empty tensors, and calling it raises
    ``ModelError``.
    """

    def __init__(
        self, original: torch.nn.Module, on_restore: Callable[[list[torch.nn.Parameter]], None]
    ) -> None:
        """Start with no weight released; call ``on_restore`` with restored parameters."""
        self._original = original
        self._on_restore = on_restore
        self._released: list[_Released] = []
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        """Whether any weight is released: of the original, or of a cast copy."""
        return bool(self._released)

    @property
    def complete(self) -> bool:
        """Whether the original has all of its weights."""
        return self._hook is None

    def release(self, model: torch.nn.Module, weight: torch.Tensor, restore: Restore) -> bool:
        """Free a weight's memory.

        Args:
            model: the original, or a copy with shared or cast weights.
            weight: one of its parameters, or a tensor that shares all of a parameter's memory.
            restore: rebuilds the weight.

        Returns:
            Whether the weight was one of the parameters.
        """
        with self._lock:
            found = [
                parameter
                for parameter in model.parameters()
                if parameter.data_ptr() == weight.data_ptr() and parameter.shape == weight.shape
            ]
            for parameter in found:
                parameter.data = parameter.data.new_empty(0)
                self._released.append(_Released(parameter, restore))
            own = {id(parameter) for parameter in self._original.parameters()}
            if self._hook is None and any(id(parameter) in own for parameter in found):
                self._hook = self._original.register_forward_pre_hook(_refuse)
            return bool(found)

    def restore_original(self) -> None:
        """Restore all weights if the original lacks any."""
        if not self.complete:
            self.restore()

    def restore(self) -> None:
        """Restore all weights and log it: from now on both copies use memory."""
        if not self._released:
            return
        with self._lock:
            size = 0
            for released in self._released:
                # The parameter may have been cast while it was empty.
                weight = released.restore().to(released.parameter.dtype)
                released.parameter.data = weight
                size += weight.numel() * weight.element_size()
            if self._released:
                logger.warning(
                    "restored %.0f MB of original weights; both copies now use memory",
                    size / 2**20,
                )
            self._on_restore([released.parameter for released in self._released])
            self._released.clear()
            if self._hook is not None:
                self._hook.remove()
                self._hook = None


def _refuse(module: torch.nn.Module, inputs: object) -> None:
    raise ModelError(
        f"the weights of this {type(module).__name__} were moved into the optimized model "
        "(keep_original=False). Call the optimized model, or read its `original` attribute to "
        "restore them"
    )
