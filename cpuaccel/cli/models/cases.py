"""Workloads of the commands: a model and batches to call it with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cpuaccel.cli.models.demo import text_batches
from cpuaccel.cli.models.inputs import (
    make_inputs,
    make_prompts,
    make_speech,
    modality,
    reads_speech,
)
from cpuaccel.cli.models.load import load_model
from cpuaccel.cli.models.source import DEMO
from cpuaccel.cli.shapes import DEFAULT_BATCH, DEFAULT_LENGTH
from cpuaccel.errors import ModelError, describe_error
from cpuaccel.model.signature import Inputs


@dataclass(frozen=True)
class Case:
    """One timed pass.

    Attributes:
        seq_len: tokens of the longest row; None for images, speech and real text.
        audio_seconds: speech in each row; None for other inputs.
    """

    batch_size: int
    seq_len: int | None
    batches: list[Inputs]
    audio_seconds: float | None = None

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
    """Make a case for each batch size and length; images and real text have their own length."""
    if name == DEMO:
        return [Case(size, None, text_batches(size)) for size in batch_sizes]
    if modality(model) == "pixel_values":
        return [Case(size, None, [make_inputs(model, size, 1)]) for size in batch_sizes]
    return [
        Case(size, length, [make_inputs(model, size, length, padding)])
        for size in batch_sizes
        for length in seq_lens
    ]


def make_prompt_cases(
    model: torch.nn.Module, batch_sizes: Sequence[int], lengths: Sequence[int], padding: float
) -> list[Case]:
    """Make a case of what ``generate`` reads for each number of rows and length.

    Prompts, texts for an encoder, or speech, which has the one length that its encoder reads.
    """
    if reads_speech(model):
        speech = [(size, *make_speech(model, size)) for size in batch_sizes]
        return [Case(size, None, [batch], seconds) for size, batch, seconds in speech]
    encoded = getattr(model.config, "is_encoder_decoder", False)
    make = make_inputs if encoded else make_prompts
    return [
        Case(size, length, [make(model, size, length, padding)])
        for size in batch_sizes
        for length in lengths
    ]


def load_example(name: str, task: str | None) -> tuple[torch.nn.Module, Inputs]:
    """Load a model and make one batch of the default size and length."""
    model = load_model(name, task)
    if name == DEMO:
        return model, text_batches(DEFAULT_BATCH)[0]
    return model, make_inputs(model, DEFAULT_BATCH, DEFAULT_LENGTH)


def call_all(model: Callable[..., object], case: Case) -> list[object]:
    """Call a model with each batch of a case."""
    try:
        with torch.no_grad():
            return [model(**batch) for batch in case.batches]
    except Exception as error:  # models raise any type on inputs that they do not accept
        raise ModelError(
            f"calling {type(model).__name__} with {case} (batch x length) raised "
            f"{describe_error(error)}. Choose another --seq-len, or another "
            "--task"
        ) from error
