"""``cpuaccel optimize``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpuaccel.artifact.layout import CONFIG, PIPELINE
from cpuaccel.cli.arguments import (
    BackendsOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PipelineOption,
    TaskOption,
    is_auto,
    read_audit,
    read_pipeline_options,
    read_precision,
    refuse_file,
)
from cpuaccel.cli.console import heading, print_json, say, say_wrapped, section
from cpuaccel.cli.shapes import (
    DEFAULT_BATCH,
    BatchSizeOption,
    PaddingOption,
    SeqLenOption,
    read_use,
    refuse_shapes,
)
from cpuaccel.errors import StepError

if TYPE_CHECKING:
    import torch

    from cpuaccel.cli.models.cases import Case
    from cpuaccel.optimized import OptimizedModel
    from cpuaccel.tuning.decisions.result import Tuning
    from cpuaccel.tuning.request import TuneArguments


def optimize(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="DIR", help="Folder to create or replace."),
    ],
    backends: BackendsOption = None,
    pipeline: PipelineOption = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use the decision of this lock file, which `cpuaccel tune` wrote for inputs of "
            "the same shapes; fail if it does not fit. With `--backends auto`, search instead, "
            "and write it.",
        ),
    ] = None,
    dtype: DtypeOption = None,
    batch_size: BatchSizeOption = None,
    seq_len: SeqLenOption = None,
    padding: PaddingOption = None,
    task: TaskOption = None,
    audit: Annotated[
        str | None,
        typer.Option(
            metavar="on|off|SHARE",
            help="Compare calls with the original while serving: `on`, the first call of each new "
            "size (default); a share of the time besides, such as 0.01; or `off`.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Optimize a model on example inputs, verify its outputs, and save it to a folder.

    The folder contains the pipeline, the report, the weights, the example with its outputs,
    checksums, and the files of the model's tokenizer or processor. If the pipeline ends in
    TorchScript, it also contains the script, which runs without cpuaccel and transformers. If no
    step is applied, nothing is written and the exit code is 1.

    For example:

    - `cpuaccel optimize ./my-model --backends bettertransformer,jit --output fast/`

    - `cpuaccel optimize ./my-model --backends auto --batch-size 1 --seq-len 64 --output fast/`

    - `cpuaccel optimize ./my-model --lock cpuaccel.lock --output fast/`
    """
    auto = is_auto(backends)
    if auto:
        refuse_file(pipeline)
        precision = read_precision(dtype)
    elif lock is not None:
        if (backends, pipeline, dtype) != (None, None, None):
            raise typer.BadParameter(
                "can't be used with --backends, --pipeline or --dtype, which the lock file has. "
                "Leave them out",
                param_hint="--lock",
            )
        precision = None
    else:
        chosen = read_pipeline_options(backends, pipeline, dtype)
    lengths = read_use("optimize", model, None, None, None, seq_len, padding, task)
    compared = None if audit is None else read_audit(audit)

    import cpuaccel
    from cpuaccel.cli.models.cases import make_cases
    from cpuaccel.cli.models.load import load_model
    from cpuaccel.cli.models.tokenizer import tokenizer_folder
    from cpuaccel.model.signature import Signature
    from cpuaccel.report import Fallback

    loaded = load_model(model, task)
    refuse_shapes(loaded, seq_len, padding)
    cases = make_cases(model, loaded, [batch_size or DEFAULT_BATCH], lengths, padding or 0.0)
    first, *others = [case.batches[0] for case in cases]
    if not auto and lock is None:
        optimized = cpuaccel.optimize(loaded, pipeline=chosen, example_inputs=first, audit=compared)
        for batch in others:
            prepared = optimized.prepare(Signature.from_inputs(loaded, batch).inputs)
            if isinstance(prepared, Fallback):
                raise StepError(f"{chosen} can't serve a call: {prepared.reason}")
        failed = f"no step of {chosen} was applied to {model}"
    else:
        optimized, tuning = _search(
            model, loaded.float(), cases, precision, lock, compared, json=json
        )
        failed = f"{tuning.winner} is the fastest for {model} ({tuning.why})"
    report = optimized.report
    if not report.applied:
        reasons = "".join(f"\n  - {outcome}" for outcome in report.outcomes)
        raise StepError(f"{failed}, so nothing was written{':' if reasons else ''}{reasons}")
    written = optimized.save(output, tokenizer=tokenizer_folder(model))
    scripts = [path for path in written if path.suffix == ".pt"]
    if json:
        print_json(
            {
                "model": model,
                "files": [str(path) for path in written],
                "scripts": [str(path) for path in scripts],
                **report.to_dict(),
            }
        )
        return
    say_wrapped(str(report))
    section("Written", map(str, written))
    heading("Load with")
    has_config = any(path.name == CONFIG for path in written)
    say(f"  cpuaccel.load({str(output)!r}{'' if has_config else ', model'})")
    named = ", ".join(f"{name}=..." for name in first)
    for path in scripts:
        say(f"  or torch.jit.load({str(path)!r})({named})")
    if scripts:
        say("  which needs only torch, and returns the output's tensors in order")
    else:
        toml = next(path for path in written if path.name == PIPELINE)
        say(f"  or cpuaccel.optimize(model, pipeline={str(toml)!r}), for another model")


def _search(
    name: str,
    model: "torch.nn.Module",
    cases: "list[Case]",
    precision: str | None,
    lock: Path | None,
    audit: bool | float | None,
    *,
    json: bool,
) -> "tuple[OptimizedModel, Tuning]":
    """Build the winner of a search in one precision or, without one, of the lock file's search."""
    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.cli.tune.search import search
    from cpuaccel.tuning.decisions.lockfile import read_search

    arguments: TuneArguments = {"lock": lock}
    tolerance = None
    if precision is not None:
        arguments["precisions"] = [precision]
    else:
        assert lock is not None
        arguments, tolerance = read_search(lock)
    batches = [batch for case in cases for batch in case.batches]
    settings = BuildSettings(tolerance=tolerance, audit=True if audit is None else audit)
    locked = precision is None
    return search(name, model, batches, arguments, settings, locked=locked, json=json)
