"""The arguments that several commands share, and how lists in them are read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cpuaccel.pipeline import Pipeline

DTYPES = ("float32", "bfloat16")
DEFAULT_LENGTH = 128

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A local folder; a hub id; **config:NAME** such as config:bert-base or "
        "config:bert-tiny for that architecture with random weights; or **demo** for the "
        "MiniLM weights of the extra cpuaccel[demo].",
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="The head: question-answering, text-classification, token-classification, "
        "feature-extraction, fill-mask, image-classification or automatic-speech-recognition. "
        "By default the one that the model's config names.",
    ),
]
BackendsOption = Annotated[
    str | None,
    typer.Option(
        "--backends", metavar="A,B", help="A pipeline: names of backends in order, as in ipex,jit."
    ),
]
PipelineOption = Annotated[
    Path | None,
    typer.Option("--pipeline", metavar="FILE", help="A pipeline from a TOML file instead."),
]
BlockingOption = Annotated[
    Path | None,
    typer.Option(
        "--pipeline", metavar="FILE", help="Without the plugins that this TOML file blocks."
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="DTYPE", help="float32 or bfloat16. By default the model's own."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, alone, on stdout.")]


def read_names(text: str, option: str, known: Sequence[str] = ()) -> list[str]:
    """Names separated by commas.

    Raises:
        typer.BadParameter: there is none, or one is not known.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("it is empty. Name at least one", param_hint=option)
    for name in names:
        if known and name not in known:
            raise typer.BadParameter(
                f"{name!r} was asked for. Known: {', '.join(known)}", param_hint=option
            )
    return names


def read_numbers(text: str, option: str) -> list[int]:
    """Whole numbers from 1 up, separated by commas.

    Raises:
        typer.BadParameter: there is none, or one is no such number.
    """
    names = read_names(text, option)
    if not all(name.isdecimal() and int(name) > 0 for name in names):
        raise typer.BadParameter(
            f"{text!r} was given. Pass whole numbers from 1 up, as in 1,8", param_hint=option
        )
    return [int(name) for name in names]


def read_lengths(command: str, model: str, seq_len: str | None, padding: float | None) -> list[int]:
    """The lengths that the longest row of a batch is to have.

    Raises:
        typer.BadParameter: one is no length; or one or a padding is chosen for the demo.
    """
    from cpuaccel.cli.models.load import DEMO

    if model == DEMO and (seq_len is not None or padding is not None):
        raise typer.BadParameter(
            "the demo's inputs are real text, with its own lengths and padding. Leave both out, "
            f"or {command} config:minilm-l6",
            param_hint="--seq-len / --padding",
        )
    return read_numbers(seq_len or str(DEFAULT_LENGTH), "--seq-len")


def read_pipeline_options(backends: str | None, file: Path | None, dtype: str | None) -> "Pipeline":
    """The one pipeline that a command was given, with its mistakes told before any work.

    Raises:
        typer.BadParameter: neither or both of the options were given, or an unknown dtype.
        PipelineError: the pipeline can't be right.
    """
    if dtype is not None:
        (dtype,) = read_names(dtype, "--dtype", DTYPES)

    from cpuaccel.model.precision import dtype_of
    from cpuaccel.pipeline import Pipeline
    from cpuaccel.planning.resolve import resolve_here
    from cpuaccel.planning.toml import read_pipeline

    if (backends is None) == (file is None):
        raise typer.BadParameter(
            "pass one of the two, for instance --backends jit",
            param_hint="--backends / --pipeline",
        )
    if file is not None:
        pipeline = read_pipeline(file)
    else:
        pipeline = Pipeline.from_steps(read_names(backends or "", "--backends"))
    resolve_here(pipeline)
    return pipeline if dtype is None else replace(pipeline, dtype=dtype_of(dtype))


def block_by(file: Path | None) -> None:
    """Block the plugins that a pipeline's file blocks.

    Raises:
        PipelineError: the file can't be right.
    """
    from cpuaccel.planning.toml import read_pipeline
    from cpuaccel.plugin.manager import disable_plugins

    if file is not None:
        pipeline = read_pipeline(file)
        disable_plugins(pipeline.disable_plugins, pipeline.source)
