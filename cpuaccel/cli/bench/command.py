"""``cpuaccel bench``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpuaccel.cli.arguments import (
    DTYPES,
    BeamsOption,
    GenerateOption,
    JsonOption,
    ModelArgument,
    PromptLengthOption,
    TaskOption,
    read_names,
    read_numbers,
    read_pipelines,
    read_tokens,
    read_use,
    refuse_lengths,
)
from cpuaccel.cli.console import INTERRUPTED, print_json, progress_bar, rescued, say

if TYPE_CHECKING:
    import torch

    from cpuaccel.cli.bench.calls import CallBench
    from cpuaccel.cli.models.demo import Neighbour
    from cpuaccel.pipeline import Pipeline


def bench(
    model: ModelArgument,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="A pipeline, such as ipex,jit. Repeatable. Default: what suits this host and most "
            "models, such as bettertransformer,onednn.",
        ),
    ] = None,
    pipeline: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A pipeline from a TOML file. Repeatable."),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Rows of a batch, by default 8, or 1 with --generate."),
    ] = None,
    seq_len: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Tokens in the longest row, by default 128. For audio N means N x 320 samples of "
            "20 ms. Not for images and the demo.",
        ),
    ] = None,
    generate: GenerateOption = None,
    prompt_len: PromptLengthOption = None,
    num_beams: BeamsOption = None,
    padding: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="Fraction of the batch that is padding, in rows of evenly distributed lengths: on "
            "the right; prompts with --generate on the left. A batch of one row has none.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="D,D",
            help="float32, bfloat16 or both. By default float32; in the demo both if the processor "
            "supports bfloat16.",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Timed passes of each pipeline. By default up to 40, within 12 seconds for each "
            "batch size, length and dtype.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of torch's threads.")] = None,
    task: TaskOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw the speedups as a chart."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Time pipelines in turn with eager, after a warm-up, with the same threads and inputs.

    Each row has the duration of a pass, the speedup over eager *in the same dtype* (median and
    quartiles of the pairs), the error of the outputs relative to the float32 original, and whether
    the pipeline was fully applied. Ctrl-C prints the finished results.

    For example:

    - `cpuaccel bench demo`

    - `cpuaccel bench config:bert-base --backends jit --backends onednn --plot speed.svg`

    - `cpuaccel bench ./my-model --backends jit --batch-size 1,8 --seq-len 128,384 --padding 0.5`

    - `cpuaccel bench config:qwen2.5-0.5b --generate 64 --prompt-len 128,1024 --backends int8`

    - `cpuaccel bench ./whisper --task automatic-speech-recognition --num-beams 5 --backends onednn`
    """
    from cpuaccel.cli.models.load import load_model
    from cpuaccel.cli.models.source import DEMO

    demo = model == DEMO
    generate = read_tokens(model, generate, task)
    lengths = read_use("bench", model, generate, num_beams, prompt_len, seq_len, padding, task)
    sizes = read_numbers(batch_size or ("8" if generate is None else "1"), "--batch-size")
    dtypes = _dtypes(dtype, demo=demo)
    pipelines = _pipelines(backends or [], pipeline or [], demo=demo)

    if plot is not None:
        from cpuaccel.artifact.atomic_write import check_writable

        if plot.suffix != ".svg":
            raise typer.BadParameter(f"must end in .svg, got {plot}", param_hint="--plot")
        check_writable(plot)

    from cpuaccel.cli.bench.bench import DEFAULT_ROUNDS, DEFAULT_SECONDS
    from cpuaccel.cli.bench.calls import CallBench
    from cpuaccel.cli.bench.generate import GenerateBench
    from cpuaccel.cli.bench.table import show, show_generate
    from cpuaccel.cli.models.cases import make_cases, make_prompt_cases
    from cpuaccel.plugin.host import host

    loaded = load_model(model, task, generates=generate is not None).float()
    if generate is not None:
        refuse_lengths(loaded, prompt_len, padding)
    elif seq_len is not None or padding is not None:
        _check_is_no_image(loaded)
    here = host()
    threads = threads or here.threads
    interrupted = False
    neighbours: dict[str, Neighbour] = {}
    seconds = DEFAULT_SECONDS if rounds is None else float("inf")
    rounds = rounds or DEFAULT_ROUNDS
    with progress_bar() as progress:
        how = here, threads, progress, rounds, seconds
        work: CallBench | GenerateBench
        if generate is None:
            cases = make_cases(model, loaded, sizes, lengths, padding or 0.0)
            work = CallBench(loaded, pipelines, cases, dtypes, *how)
        else:
            cases = make_prompt_cases(loaded, sizes, lengths, padding or 0.0)
            beams = num_beams or 1
            work = GenerateBench(
                loaded, pipelines, cases, dtypes, *how, tokens=generate, num_beams=beams
            )
        try:
            work.run()
            if demo and isinstance(work, CallBench):
                neighbours = _neighbours(work, loaded)
        except KeyboardInterrupt:
            interrupted = True
    data: dict[str, object] = {
        "model": model,
        "processor": here.processor,
        "torch": here.packages["torch"],
        "threads": threads,
        "padding": padding or 0.0,
        **({} if generate is None else {"tokens": generate, "num_beams": num_beams or 1}),
        "interrupted": interrupted,
        "results": [result.to_dict() for result in work.results],
    }
    with rescued(data):
        if json:
            nearest = {name: asdict(neighbour) for name, neighbour in neighbours.items()}
            print_json({**data, **({"nearest": nearest} if demo else {})})
        elif isinstance(work, CallBench):
            show(data, work.results, neighbours)
        else:
            show_generate(data, work.results)
    if plot is not None:
        from cpuaccel.cli.bench.chart import write_chart

        write_chart(plot, data, work.results)  # after the results, since it may fail
        if not json:
            say(f"written: {plot}")
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _dtypes(dtype: str | None, *, demo: bool) -> list[str]:
    if dtype is not None:
        return read_names(dtype, "--dtype", DTYPES)
    if demo:
        from cpuaccel.plugin.host import host

        return list(DTYPES) if host().bf16() else ["float32"]
    return ["float32"]


def _pipelines(backends: list[str], files: list[Path], *, demo: bool) -> "dict[str, Pipeline]":
    if demo and not backends and not files:
        from cpuaccel.cli.models.demo import PIPELINES

        backends = list(PIPELINES)
    return read_pipelines(backends, files)


def _check_is_no_image(model: "torch.nn.Module") -> None:
    from cpuaccel.cli.models.inputs import modality

    if modality(model) == "pixel_values":
        raise typer.BadParameter(
            f"{type(model).__name__} takes images of a fixed size. Leave both out",
            param_hint="--seq-len / --padding",
        )


def _neighbours(work: "CallBench", model: "torch.nn.Module") -> "dict[str, Neighbour]":
    """Return the sentence nearest to the query, by the original and the fastest pipeline."""
    from cpuaccel.cli.models.demo import nearest

    batches = work.cases[0].batches
    neighbours = {"eager, float32": nearest(model, batches)}
    if work.fastest is not None:
        result, call = work.fastest
        neighbours[f"{result.pipeline}, {result.dtype}"] = nearest(call, batches)
    return neighbours
