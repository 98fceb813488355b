"""Options for the shapes of a command's inputs, and their parsing."""

from typing import TYPE_CHECKING, Annotated

import typer

from cpuaccel.cli.arguments import read_numbers

if TYPE_CHECKING:
    import torch

DEFAULT_BATCH, DEFAULT_LENGTH = 8, 128
DEFAULT_PROMPTS = 1
"""Rows of a batch with ``--generate``."""
DEFAULT_TOKENS = 64

BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        metavar="N",
        help=f"Rows of a batch, by default {DEFAULT_BATCH}; {DEFAULT_PROMPTS} with --generate.",
    ),
]
SeqLenOption = Annotated[
    str | None,
    typer.Option(
        "--seq-len",
        metavar="N,N",
        help=f"Tokens in the longest row, by default {DEFAULT_LENGTH}. For audio N means N x 320 "
        "samples of 20 ms. Not for images and the demo.",
    ),
]
PaddingOption = Annotated[
    float | None,
    typer.Option(
        "--padding",
        min=0.0,
        max=0.99,
        help="Fraction of the batch that is padding, in rows of evenly distributed lengths: on "
        "the right; prompts with --generate on the left. A batch of one row has none.",
    ),
]
GenerateOption = Annotated[
    int | None,
    typer.Option(
        "--generate",
        min=1,
        metavar="N",
        help="Time generate of a language model or an encoder-decoder, for N new tokens, instead "
        "of calls. By default 64 for encoder-decoders for speech and for translation.",
    ),
]
BeamsOption = Annotated[
    int | None,
    typer.Option(
        "--num-beams",
        min=1,
        metavar="N",
        help="With --generate: beams of the search, by default 1, which is greedy.",
    ),
]
PromptLengthOption = Annotated[
    str | None,
    typer.Option(
        "--prompt-len",
        metavar="N,N",
        help="With --generate: tokens in the longest prompt, or text to translate, by default 128.",
    ),
]


def _read_lengths(
    command: str, model: str, seq_len: str | None, padding: float | None
) -> list[int]:
    """Parse the lengths of the longest row of a batch, in tokens."""
    from cpuaccel.cli.models.source import DEMO

    if model == DEMO and (seq_len is not None or padding is not None):
        raise typer.BadParameter(
            "not supported for demo, whose inputs are real text. Leave both out, or "
            f"{command} config:minilm-l6",
            param_hint="--seq-len / --padding",
        )
    return read_numbers(seq_len or str(DEFAULT_LENGTH), "--seq-len")


def default_batch(generate: int | None) -> int:
    """Return the rows of a batch, or of prompts."""
    return DEFAULT_BATCH if generate is None else DEFAULT_PROMPTS


def read_tokens(model: str, generate: int | None, task: str | None) -> int | None:
    """Return the number of tokens to generate; None where the model is to be called."""
    from cpuaccel.cli.models.load import is_generating

    return DEFAULT_TOKENS if generate is None and is_generating(model, task) else generate


def read_use(
    command: str,
    model: str,
    generate: int | None,
    num_beams: int | None,
    prompt_len: str | None,
    seq_len: str | None,
    padding: float | None,
    task: str | None,
) -> list[int]:
    """Check the options for calls or ``generate``, and return the lengths of the longest row."""
    from cpuaccel.cli.models.source import DEMO

    if generate is None:
        _refuse("--prompt-len", prompt_len, "needs --generate")
        _refuse("--num-beams", num_beams, "needs --generate")
        return _read_lengths(command, model, seq_len, padding)
    _refuse("--seq-len", seq_len, "can't be used with --generate. Pass --prompt-len")
    from cpuaccel.cli.models.load import GENERATING

    if task not in GENERATING:
        _refuse("--task", task, f"must be {', '.join(GENERATING)} with --generate. Leave it out")
    _refuse("MODEL", model if model == DEMO else None, "is not a language model")
    return read_numbers(prompt_len or str(DEFAULT_LENGTH), "--prompt-len")


def refuse_lengths(model: "torch.nn.Module", prompt_len: str | None, padding: float | None) -> None:
    """Refuse lengths for a model whose encoder reads speech of one length."""
    from cpuaccel.cli.models.inputs import reads_speech

    if reads_speech(model):
        why = f"{type(model).__name__} reads speech of one length. Leave it out"
        _refuse("--prompt-len", prompt_len, why)
        _refuse("--padding", padding, why)


def refuse_shapes(model: "torch.nn.Module", seq_len: str | None, padding: float | None) -> None:
    """Refuse lengths for a model that takes images."""
    from cpuaccel.cli.models.inputs import modality

    given = seq_len is not None or padding is not None
    if given and modality(model) == "pixel_values":
        raise typer.BadParameter(
            f"{type(model).__name__} takes images of a fixed size. Leave both out",
            param_hint="--seq-len / --padding",
        )


def _refuse(option: str, value: object, why: str) -> None:
    if value is not None:
        raise typer.BadParameter(f"{why}, got {value}", param_hint=option)
