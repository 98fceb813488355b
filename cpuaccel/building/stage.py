"""The model between two steps, and how to call it like the original."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cpuaccel.errors import BackendError
from cpuaccel.model.output import Structure, tensors
from cpuaccel.model.signature import Binder, Inputs, Signature, cast_floating
from cpuaccel.pipeline import Options
from cpuaccel.plugin.backend import Applied, Backend, Form
from cpuaccel.plugin.kept import Kept


class Output(NamedTuple):
    """A model's output as the original returns it, and its tensors in order."""

    value: object
    tensors: list[torch.Tensor]


Call = Callable[[Inputs], Output]
"""Calls a model with inputs by name."""


@dataclass(frozen=True)
class Stage:
    """The model between two steps.

    Attributes:
        model: the result of the last step.
        form: the form of the model.
        dtype: the precision of the model, None for the original's own.
        autocast: the dtype under whose autocast the model runs, None for none.
        tolerance: the widest tolerance that an applied backend declares.
        value_ranges: see ``Applied``; None if no step was calibrated.
        step: name of the backend of the last step.
        kept: see ``Applied``.
    """

    model: Callable[..., object]
    form: Form
    dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    tolerance: float = 0.0
    value_ranges: Mapping[str, tuple[float, float]] | None = None
    step: str = ""
    kept: Callable[[], Kept] | None = None

    def after(
        self, backend: Backend[Options], applied: Applied, dtype: torch.dtype | None
    ) -> "Stage":
        """Return the stage after a step.

        Args:
            backend: the backend of the step.
            applied: what the backend returned.
            dtype: the precision that the backend cast the weights to, None if it did not.
        """
        autocast = applied.autocast or self.autocast
        tolerance = max(self.tolerance, backend.tolerance)
        dtype = self.dtype or dtype or autocast
        ranges = self.value_ranges if applied.value_ranges is None else applied.value_ranges
        return Stage(
            applied.model,
            backend.gives,
            dtype,
            autocast,
            tolerance,
            ranges,
            backend.name,
            applied.kept,
        )

    def caller(self, binder: Binder, signature: Signature, output: object) -> Call:
        """Return a closure that calls the model like the original.

        It casts the inputs, calls the model, flattens the output once, casts its tensors back and
        rebuilds the original's output type once.

        Args:
            binder: calls the original.
            signature: how the original was called.
            output: what the original returned for that call.
        """
        model, dtype, autocast_dtype = self.model, self.dtype, self.autocast
        is_module, constants = self.form is Form.MODULE, signature.constants
        # An output that holds more than tensors passes through a module that is not cast.
        rebuilds = not is_module or dtype is not None
        structure = Structure.from_output(output) if rebuilds else None
        dtypes = [tensor.dtype for tensor in tensors(output)] if dtype is not None else []

        def run(inputs: Inputs) -> object:
            if is_module:
                return binder.call(model, inputs)
            if constants:
                inputs = {n: v for n, v in inputs.items() if n not in constants}
            return model(**inputs)

        def call(inputs: Inputs) -> Output:
            if dtype is not None:
                inputs = cast_floating(inputs, dtype)
            if autocast_dtype is None:
                value = run(inputs)
            else:
                with autocast(autocast_dtype):
                    value = run(inputs)
            flat = tensors(value)
            if structure is None:
                return Output(value, flat)
            if len(flat) != structure.count:
                raise BackendError(
                    f"the model must return {structure.count} tensors, got {len(flat)}"
                )
            if dtypes:
                flat = [tensor.to(d) for tensor, d in zip(flat, dtypes)]
            return Output(structure.restore(iter(flat)), flat)

        return call


def autocast(dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast for the CPU, or no autocast. Tracing does not support autocast's weight cache."""
    return torch.autocast(
        "cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False
    )
