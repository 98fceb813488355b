"""``cpuaccel bench``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpuaccel.cli.arguments import (
    DTYPES,
    JsonOption,
    ModelArgument,
    TaskOption,
    is_auto,
    read_names,
    read_numbers,
    read_pipelines,
)
from cpuaccel.cli.console import INTERRUPTED, print_json, progress_bar, rescued, say, stderr
from cpuaccel.cli.shapes import (
    BeamsOption,
    GenerateOption,
    PaddingOption,
    PromptLengthOption,
    SeqLenOption,
    default_batch,
    read_tokens,
    read_use,
    refuse_lengths,
    refuse_shapes,
)

if TYPE_CHECKING:
    import torch

    from cpuaccel.cli.bench.calls import CallBench
    from cpuaccel.cli.models.cases import Case
    from cpuaccel.cli.models.demo import Neighbour
    from cpuaccel.pipeline import Pipeline
    from cpuaccel.tuning.request import TuneArguments


def bench(
    model: ModelArgument,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="A pipeline, such as ipex,jit. Repeatable. Default: what suits this host and most "
            "models, such as bettertransformer,onednn. auto is the fastest that the search of "
            "cpuaccel tune finds in one dtype.",
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
    seq_len: SeqLenOption = None,
    generate: GenerateOption = None,
    prompt_len: PromptLengthOption = None,
    num_beams: BeamsOption = None,
    padding: PaddingOption = None,
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

    - `cpuaccel bench config:minilm-l6`

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
    sizes = read_numbers(batch_size or str(default_batch(generate)), "--batch-size")
    searched = [names for names in backends or [] if is_auto(names)]
    dtypes = _dtypes(dtype, demo=demo and not searched)
    if searched and len(dtypes) > 1:
        raise typer.BadParameter(f"must be one with auto, got {dtype!r}", param_hint="--dtype")
    named = [names for names in backends or [] if not is_auto(names)]
    pipelines = {}
    if named or pipeline or not searched:
        pipelines = _pipelines(named, pipeline or [], demo=demo)

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
    called: dict[str, object] | None = None
    if generate is None:
        refuse_shapes(loaded, seq_len, padding)
        cases = make_cases(model, loaded, sizes, lengths, padding or 0.0)
    else:
        refuse_lengths(loaded, prompt_len, padding)
        cases = make_prompt_cases(loaded, sizes, lengths, padding or 0.0)
        called = {"max_new_tokens": generate, "num_beams": num_beams or 1}
    here = host()
    threads = threads or here.threads
    interrupted = False
    neighbours: dict[str, Neighbour] = {}
    seconds = DEFAULT_SECONDS if rounds is None else float("inf")
    rounds = rounds or DEFAULT_ROUNDS
    if searched:
        request: TuneArguments = {"precisions": dtypes, "threads": threads, "generate": called}
        pipelines |= _search(model, loaded, cases, request, json=json)
    with progress_bar() as progress:
        how = here, threads, progress, rounds, seconds
        work: CallBench | GenerateBench
        if generate is None:
            work = CallBench(loaded, pipelines, cases, dtypes, *how)
        else:
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


def _search(
    name: str,
    model: "torch.nn.Module",
    cases: "list[Case]",
    arguments: "TuneArguments",
    *,
    json: bool,
) -> "dict[str, Pipeline]":
    """Return the pipelines that a search over all cases chooses, none if it keeps eager."""
    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.cli.tune.search import search

    batches = [batch for case in cases for batch in case.batches]
    _, tuning = search(name, model, batches, arguments, BuildSettings(), json=json)
    chosen = [candidate for candidate in tuning.chosen if candidate.steps]
    if not chosen:
        stderr.print(f"auto keeps eager: {tuning.why}", markup=False, highlight=False)
    return {f"auto: {candidate.name}": candidate.pipeline for candidate in chosen}


def _neighbours(work: "CallBench", model: "torch.nn.Module") -> "dict[str, Neighbour]":
    """Return the sentence nearest to the query, by the original and the fastest pipeline."""
    from cpuaccel.cli.models.demo import nearest

    batches = work.cases[0].batches
    neighbours = {"eager, float32": nearest(model, batches)}
    if work.fastest is not None:
        result, call = work.fastest
        neighbours[f"{result.pipeline}, {result.dtype}"] = nearest(call, batches)
    return neighbours
