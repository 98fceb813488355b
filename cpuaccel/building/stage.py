"""The model between two steps, and how to get the original's kind of answer out of it."""

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from cpuaccel.errors import BackendError
from cpuaccel.model.output import Structure, tensors
from cpuaccel.model.signature import Binder, Inputs, Signature, cast_floating
from cpuaccel.pipeline import Options
from cpuaccel.plugin.backend import Applied, Backend, Form

Answer = Callable[[Inputs], object]
"""Calls a model with inputs by name and returns what the original would return."""


@dataclass(frozen=True)
class Stage:
    """The model between two steps.

    Attributes:
        model: what the last step gave.
        form: the form that it has.
        dtype: the precision that it was brought to, None for the original's.
        autocast: the dtype under whose autocast it has to be called, if any.
        tolerance: the widest that a backend applied so far declares.
    """

    model: Callable[..., object]
    form: Form
    dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    tolerance: float = 0.0

    def after(
        self, backend: Backend[Options], applied: Applied, dtype: torch.dtype | None
    ) -> "Stage":
        """The stage that a step leads to.

        Args:
            backend: the step's.
            applied: what it returned.
            dtype: the precision that it brought the weights to, if it did.
        """
        autocast = applied.autocast or self.autocast
        tolerance = max(self.tolerance, backend.tolerance)
        dtype = self.dtype or dtype or autocast
        return Stage(applied.model, backend.gives, dtype, autocast, tolerance)

    def answering(self, binder: Binder, signature: Signature, output: object) -> Answer:
        """Make what calls the model and answers as the original would.

        Args:
            binder: calls the original.
            signature: how the original was called.
            output: what it returned then.
        """
        answer: Answer
        if self.form is Form.MODULE:
            answer = functools.partial(binder.call, self.model)
        else:
            answer = _restoring(self.model, Structure.from_output(output), signature.constants)
        if self.dtype is not None:
            answer = _casting(answer, self.dtype, output)
        if self.autocast is not None:
            answer = _autocasting(answer, self.autocast)
        return answer


def _restoring(
    model: Callable[..., object], structure: Structure, constants: Mapping[str, object]
) -> Answer:
    """Call with tensors alone, and build the original's output from the flat tuple."""
    count = structure.count

    def answer(inputs: Inputs) -> object:
        if constants:
            inputs = {n: v for n, v in inputs.items() if n not in constants}
        answered = tensors(model(**inputs))
        if len(answered) != count:
            raise BackendError(f"it returned {len(answered)} tensors in place of {count}")
        return structure.restore(iter(answered))

    return answer


def _casting(answer: Answer, dtype: torch.dtype, output: object) -> Answer:
    """Cast inputs on the way in, and answers back to what the original's were."""
    structure, dtypes = Structure.from_output(output), [tensor.dtype for tensor in tensors(output)]

    def cast_answer(inputs: Inputs) -> object:
        answered = tensors(answer(cast_floating(inputs, dtype)))
        return structure.restore(t.to(d) for t, d in zip(answered, dtypes, strict=True))

    return cast_answer


def _autocasting(answer: Answer, dtype: torch.dtype) -> Answer:
    def autocast_answer(inputs: Inputs) -> object:
        with calling(dtype):
            return answer(inputs)

    return autocast_answer


def calling(autocast: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast for the CPU with its weight cache off, which tracing can't take, or no autocast."""
    return torch.autocast(
        "cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None, cache_enabled=False
    )
