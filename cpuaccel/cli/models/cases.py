"""What models are called with on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cpuaccel.cli.models.demo import text_batches
from cpuaccel.cli.models.inputs import make_inputs, modality
from cpuaccel.cli.models.load import DEMO, load_model
from cpuaccel.errors import ModelError, describe_error
from cpuaccel.model.signature import Inputs

EXAMPLE_BATCH, EXAMPLE_LENGTH = 2, 128
"""What ``explain`` and ``optimize`` call a model with."""


@dataclass(frozen=True)
class Case:
    """One workload to be timed.

    Attributes:
        batch_size: rows of a batch.
        seq_len: tokens of the longest row; None where it is not chosen: images and real text.
        batches: what is called, one after the other, to make one timed pass.
    """

    batch_size: int
    seq_len: int | None
    batches: list[Inputs]

    def __str__(self) -> str:
        if self.seq_len is not None:
            return f"{self.batch_size} x {self.seq_len}"
        if len(self.batches) > 1:
            return f"{len(self.batches)} batches of {self.batch_size}"
        return str(self.batch_size)


def make_cases(
    name: str,
    model: torch.nn.Module,
    batch_sizes: Sequence[int],
    seq_lens: Sequence[int],
    padding: float,
) -> list[Case]:
    """One case for each batch size and length; images and the demo's text have their own.

    Args:
        name: what the user wrote for MODEL.
        model: what it stands for.
        batch_sizes: rows.
        seq_lens: tokens in the longest row.
        padding: fraction of a batch that is padding.

    Raises:
        ModelError: inputs can't be made for this model.
    """
    if name == DEMO:
        return [Case(size, None, text_batches(size)) for size in batch_sizes]
    if modality(model) == "pixel_values":
        return [Case(size, None, [make_inputs(model, size, 1)]) for size in batch_sizes]
    return [
        Case(size, length, [make_inputs(model, size, length, padding)])
        for size in batch_sizes
        for length in seq_lens
    ]


def load_example(name: str, task: str | None) -> tuple[torch.nn.Module, Inputs]:
    """Load a model, with inputs to plan and build with.

    Args:
        name: what the user wrote for MODEL.
        task: as for ``load_model``.

    Raises:
        ModelError: the model can't be loaded, or inputs can't be made for it.
    """
    model = load_model(name, task)
    if name == DEMO:
        return model, text_batches(EXAMPLE_BATCH)[0]
    return model, make_inputs(model, EXAMPLE_BATCH, EXAMPLE_LENGTH)


def call_all(model: torch.nn.Module, case: Case) -> list[object]:
    """The original's answers to a case.

    Raises:
        ModelError: it can't be called so, as when the case is longer than its positions.
    """
    try:
        with torch.no_grad():
            return [model(**batch) for batch in case.batches]
    except Exception as error:  # models raise what they like on inputs that they don't take
        raise ModelError(
            f"{type(model).__name__} was to be called with {case} (batch x length), but raised "
            f"{describe_error(error)}. Choose another --seq-len, or another "
            "--task"
        ) from error
