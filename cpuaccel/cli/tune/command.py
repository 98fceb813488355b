"""``cpuaccel tune``."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from cpuaccel.cli.arguments import (
    DTYPES,
    JsonOption,
    ModelArgument,
    TaskOption,
    read_names,
    read_numbers,
)
from cpuaccel.cli.console import print_json, rescued, say
from cpuaccel.cli.shapes import (
    BatchSizeOption,
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

WORD_ERRORS = 0.002
"""By how much the word error rate may rise."""

DEFAULT_LOCK = "cpuaccel.lock"


def tune(
    model: ModelArgument,
    budget: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Search duration, without the final build."),
    ] = 300.0,
    target: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="latency of single calls, or throughput, for which several processes at the same "
            "time are measured as well.",
        ),
    ] = "latency",
    precisions: Annotated[
        str,
        typer.Option(
            metavar="D,D",
            help="float32, bfloat16 or both. bfloat16 is faster if the processor supports it, and "
            "changes the outputs by some percent of their magnitude.",
        ),
    ] = "float32",
    batch_size: BatchSizeOption = None,
    seq_len: SeqLenOption = None,
    padding: PaddingOption = None,
    generate: GenerateOption = None,
    prompt_len: PromptLengthOption = None,
    num_beams: BeamsOption = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --generate N, for speech: a CSV file with the columns audio (paths of "
            "sound files, relative to its own folder) and text. They are the inputs instead of "
            "made ones, texts end where the model ends them, after N tokens at most, and a "
            "candidate's word error rate is compared with the original's, so that int8 is a "
            "candidate too.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="X",
            help="With --recordings: by how much the word error rate may rise, by default "
            f"{WORD_ERRORS:g}.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="X",
            help="Largest accepted difference of an output, relative to its magnitude. By default "
            "1e-4 in float32, 5e-2 in bfloat16. A wider tolerance includes backends with larger "
            "differences, such as int8.",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Number of torch's threads; auto searches for the fastest number.",
        ),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Lock file for the decision, such as cpuaccel.lock. A decision in it for the same "
            "machine, versions and model is verified and used without a search.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Fail if the lock file no longer fits, instead of tuning again."
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page with all results."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Limit for building one candidate. By default a third of the budget.",
        ),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            metavar="GIB",
            help="Limit for one candidate's process. By default four fifths of the free memory.",
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(help="Use an earlier decision from the user's cache, if there is one."),
    ] = True,
    task: TaskOption = None,
    json: JsonOption = False,
) -> None:
    """Find the fastest pipeline on this machine by measuring all of them, each in its own process.

    The candidates are the backends of all plugins, alone and composed. The outputs of each are
    compared with the original's, and it is timed in turn with eager, with the same threads.
    Candidates that crash, hang, exceed the memory limit or change the outputs are listed with the
    reason. Eager is kept unless a candidate is significantly faster. The winner is built again in
    this process and verified. Ctrl-C ends the search without writing files, and prints the results
    so far.

    For example:

    - `cpuaccel tune config:minilm-l6`

    - `cpuaccel tune config:bert-base --precisions float32,bfloat16 --html tuning.html`

    - `cpuaccel tune ./my-model --batch-size 8 --seq-len 64,384 --padding 0.5 --lock cpuaccel.lock`

    - `cpuaccel tune ./my-model --generate 64 --prompt-len 512 --precisions float32,bfloat16`

    - `cpuaccel tune ./whisper --task automatic-speech-recognition --generate 64`

    - `cpuaccel tune ./whisper --generate 128 --recordings recordings.csv`
    """
    generate = read_tokens(model, generate, task)
    lengths = read_use("tune", model, generate, num_beams, prompt_len, seq_len, padding, task)
    chosen_precisions = read_names(precisions, "--precisions", DTYPES)
    chosen_target = read_names(target, "--target", ("latency", "throughput"))[0]
    thread_count = _read_threads(threads)
    if recordings is None and max_drop is not None:
        raise typer.BadParameter("needs --recordings", param_hint="--max-drop")
    if recordings is not None and generate is None:
        raise typer.BadParameter("needs --generate", param_hint="--recordings")
    if html is not None:
        from cpuaccel.tuning.decisions.html import check_page

        check_page(html)

    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.cli.models.cases import Case, make_cases, make_prompt_cases
    from cpuaccel.cli.models.load import load_model
    from cpuaccel.cli.models.recordings import read_recordings
    from cpuaccel.cli.tune.search import search
    from cpuaccel.plugin.host import host
    from cpuaccel.tuning.request import TuneArguments

    loaded = load_model(model, task, generates=generate is not None).float()
    arguments: TuneArguments = {}
    rows = [batch_size or default_batch(generate)]
    if generate is None:
        refuse_shapes(loaded, seq_len, padding)
        cases = make_cases(model, loaded, rows, lengths, padding or 0.0)
    else:
        refuse_lengths(loaded, prompt_len, padding)
        arguments["generate"] = called = {
            "max_new_tokens": generate,
            "num_beams": num_beams or 1,
        }
        if recordings is None:
            cases = make_prompt_cases(loaded, rows, lengths, padding or 0.0)
        else:
            labelled = read_recordings(model, loaded, recordings, rows[0])
            cases = [Case(rows[0], None, labelled.batches)]
            called["min_new_tokens"] = 0
            arguments["metric"] = labelled.accuracy
            arguments["max_drop"] = WORD_ERRORS if max_drop is None else max_drop
    batches = [batch for case in cases for batch in case.batches]
    _, tuning = search(
        model,
        loaded,
        batches,
        {
            **arguments,
            "budget": budget,
            "target": cast("Literal['latency', 'throughput']", chosen_target),
            "precisions": chosen_precisions,
            "threads": thread_count,
            "lock": lock,
            "cache": cache,
            "time_limit": time_limit,
            "memory_limit": None if memory_limit is None else int(memory_limit * 2**30),
        },
        BuildSettings(tolerance=tolerance, strict=strict),
        json=json,
    )
    here = host()
    data: dict[str, object] = {
        "model": model,
        "host": here.to_dict(),
        "interrupted": False,
        **tuning.to_dict(),
        "lock": lock and str(lock),
        "html": html and str(html),
    }
    with rescued(data):
        if json:
            print_json(data)
        else:
            from cpuaccel.cli.tune.table import show

            show(model, tuning, here, written=[] if lock is None else [lock])
    if html is not None:
        from cpuaccel.tuning.decisions.html import write_page

        save = ""  # no command saves what is fastest for ``generate``
        if generate is None:
            shapes = {"--batch-size": batch_size, "--seq-len": seq_len, "--padding": padding}
            save = _save_command(model, {**shapes, "--task": task, "--lock": lock or DEFAULT_LOCK})
        write_page(html, model, tuning, here, lock, save)  # after the results, since it may fail
        if not json:
            say(f"  written: {html}")


def _save_command(model: str, options: Mapping[str, object]) -> str:
    given = [str(word) for option in options.items() if option[1] is not None for word in option]
    return shlex.join(["cpuaccel", "optimize", model, *given, "--output", "fast/"])


def _read_threads(threads: str | None) -> "int | Literal['auto'] | None":
    if threads is None or threads == "auto":
        return "auto" if threads else None
    return read_numbers(threads, "--threads")[0]
