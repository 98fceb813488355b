"""``cpuaccel tune``."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from cpuaccel.cli.arguments import (
    DTYPES,
    JsonOption,
    ModelArgument,
    TaskOption,
    read_lengths,
    read_names,
    read_numbers,
)
from cpuaccel.cli.console import print_json, rescued, say


def tune(
    model: ModelArgument,
    budget: Annotated[
        float,
        typer.Option(
            "--budget", metavar="SECONDS", help="How long to search. The winner is built after it."
        ),
    ] = 300.0,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="latency, of one call after the other; or throughput, for which several "
            "processes side by side are tried as well.",
        ),
    ] = "latency",
    precisions: Annotated[
        str,
        typer.Option(
            "--precisions",
            metavar="D,D",
            help="float32, bfloat16 or both. bfloat16 is faster where the processor has it, and "
            "changes the answers by some percent of their magnitude.",
        ),
    ] = "float32",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, metavar="N", help="Rows of a batch.")
    ] = 1,
    seq_len: Annotated[
        str | None,
        typer.Option(
            "--seq-len",
            metavar="N,N",
            help="Tokens in the longest row, by default 128; several lengths may be answered by "
            "different pipelines. For audio N stands for N x 320 samples; images have their own "
            "size, and the demo its own text.",
        ),
    ] = None,
    padding: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="Fraction of the batch that is padding, as in cpuaccel bench.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0.0,
            metavar="X",
            help="Largest accepted difference of an output, relative to its magnitude. By default "
            "1e-4 in float32, 5e-2 in bfloat16. With a wider one backends that compute coarsely, "
            "such as int8, take part as well.",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads",
            metavar="N|auto",
            help="Torch's threads, equal for all; auto looks for the best number of them.",
        ),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="FILE",
            help="Keep the decision in this file, such as cpuaccel.lock. Where it holds one for "
            "this machine, these versions and this model, it is checked and used without a search.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Fail where the lockfile no longer fits, instead of tuning again."
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page that shows all that was found."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            help="For building one candidate. By default a third of the budget.",
        ),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            "--memory-limit",
            metavar="GIB",
            help="For one candidate's process. By default four fifths of what is free.",
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(help="Take the decision from the user's cache where it was made before."),
    ] = True,
    task: TaskOption = None,
    json: JsonOption = False,
) -> None:
    """Find the pipeline that is fastest here, by trying all there are, each in its own process.

    Every backend of every plugin takes part, alone and composed with others. A candidate's answers
    are compared with the original's, and it is timed in turn with eager, with the same threads.
    What crashes, hangs, takes too much memory or answers otherwise is a row in the table. Eager is
    kept unless the win is beyond the noise. The winner is built once more in this process, and
    checked again. Ctrl-C ends it, writes nothing, and prints what was found so far.

    For example:

    - `cpuaccel tune demo`

    - `cpuaccel tune config:bert-base --precisions float32,bfloat16 --html tuning.html`

    - `cpuaccel tune ./my-model --batch-size 8 --seq-len 64,384 --padding 0.5 --lock cpuaccel.lock`
    """
    lengths = read_lengths("tune", model, seq_len, padding)
    wanted = read_names(precisions, "--precisions", DTYPES)
    aimed = read_names(target, "--target", ("latency", "throughput"))[0]
    counted = _threads(threads)
    if html is not None:
        from cpuaccel.tuning.decisions.html import check_page

        check_page(html)

    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.cli.models.cases import make_cases
    from cpuaccel.cli.models.load import load_model
    from cpuaccel.cli.tune.unfinished import nothing_lost
    from cpuaccel.plugin.host import host
    from cpuaccel.tuning.auto import optimize_auto
    from cpuaccel.tuning.decisions.result import Tuning
    from cpuaccel.tuning.request import Request

    loaded = load_model(model, task).float()
    cases = make_cases(model, loaded, [batch_size], lengths, padding or 0.0)
    batches = [batch for case in cases for batch in case.batches]
    request = Request.of(
        loaded,
        {
            "budget": budget,
            "target": cast("Literal['latency', 'throughput']", aimed),
            "precisions": wanted,
            "threads": counted,
            "lock": lock,
            "cache": cache,
            "time_limit": time_limit,
            "memory_limit": None if memory_limit is None else int(memory_limit * 2**30),
        },
        BuildSettings(tolerance=tolerance, strict=strict),
    )
    here = host()
    with nothing_lost(model, here, json=json) as progress:
        optimized = optimize_auto(loaded, batches, request, progress=progress)
    tuning = optimized.report.tuning
    assert isinstance(tuning, Tuning)
    found: dict[str, object] = {
        "model": model,
        "host": here.to_dict(),
        "interrupted": False,
        **tuning.to_dict(),
        "lock": lock and str(lock),
        "html": html and str(html),
    }
    with rescued(found):
        if json:
            print_json(found)
        else:
            from cpuaccel.cli.tune.table import show

            show(model, tuning, here, written=[] if lock is None else [lock])
    if html is not None:
        from cpuaccel.tuning.decisions.html import write_page

        write_page(html, model, tuning, here)  # after the results: it may find no room
        if not json:
            say(f"  written: {html}")


def _threads(threads: str | None) -> "int | Literal['auto'] | None":
    if threads is None or threads == "auto":
        return "auto" if threads else None
    return read_numbers(threads, "--threads")[0]
