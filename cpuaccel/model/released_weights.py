"""Letting go of weights that a backend holds in a layout of its own, and getting them back."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cpuaccel.errors import ModelError

logger = logging.getLogger("cpuaccel")

Restore = Callable[[], torch.Tensor]
"""Makes a weight anew, exactly as it was."""

Release = Callable[[torch.Tensor, Restore], bool]
"""Lets go of a weight; says whether it could. See ``ReleasedWeights.release``."""


@dataclass(frozen=True)
class _Released:
    parameter: torch.nn.Parameter
    restore: Restore


class ReleasedWeights:
    """The weights of one model that only an optimized form of it holds, for the time being.

    While any is away, calling the model raises ``ModelError``; that of the weights, and not a
    crash, is what other uses of it meet: its parameters are empty tensors.
    """

    def __init__(
        self, original: torch.nn.Module, moved: Callable[[list[torch.nn.Parameter]], None]
    ) -> None:
        """Watch over a model's weights.

        Args:
            original: the caller's model.
            moved: is told which parameters have their weights back.
        """
        self._original = original
        self._moved = moved
        self._released: list[_Released] = []
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        """Whether any weight is away: one of the original's, or of a copy that was cast."""
        return bool(self._released)

    @property
    def complete(self) -> bool:
        """Whether the original has all of its own."""
        return self._hook is None

    def release(self, model: torch.nn.Module, weight: torch.Tensor, restore: Restore) -> bool:
        """Free a weight's memory.

        Args:
            model: the original, or a copy that shares its weights or has cast ones.
            weight: one of its parameters, or a tensor that shares all of one's memory.
            restore: what gives the weight back.

        Returns:
            Whether it was a parameter, and so let go of.
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
        """Bring all weights back if the original lacks any of its own."""
        if not self.complete:
            self.restore()

    def restore(self) -> None:
        """Bring all weights back, and say so: from now on they are held twice."""
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
                    "the original's weights were brought back: %.0f MB are held twice from here on",
                    size / 2**20,
                )
            self._moved([released.parameter for released in self._released])
            self._released.clear()
            if self._hook is not None:
                self._hook.remove()
                self._hook = None


def _refuse(module: torch.nn.Module, inputs: object) -> None:
    raise ModelError(
        f"{type(module).__name__} was called, but it gave its weights up to the model that "
        "cpuaccel.optimize(..., keep_original=False) made of it. Call that one, or ask for its "
        "`original`, which brings the weights back"
    )
