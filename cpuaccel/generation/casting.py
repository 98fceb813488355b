"""Casting what an encoder has computed to the precision of the stepper that reads it."""

from collections.abc import Callable

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import ModelOutput

from cpuaccel.generation.subject import OUTPUTS, STATES


class Casting:
    """A stepper's ``forward`` in another precision than the encoder's.

    What was cast last is kept: all steps of one ``generate`` read the same.
    """

    def __init__(self, forward: Callable[..., object], dtype: torch.dtype) -> None:
        self._forward = forward
        self._dtype = dtype
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, **inputs: object) -> object:
        """Call it with the inputs by name."""
        output, states = inputs.get(OUTPUTS), inputs.get(STATES)
        if isinstance(output, ModelOutput | tuple):
            inputs[OUTPUTS] = BaseModelOutput(self._cast(output[0]))
        if isinstance(states, torch.Tensor):
            inputs[STATES] = self._cast(states)
        return self._forward(**inputs)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        last = self._last
        if last is None or last[0] is not tensor:
            last = self._last = tensor, tensor.to(self._dtype)
        return last[1]
