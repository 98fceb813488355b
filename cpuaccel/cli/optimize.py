"""``cpuaccel optimize``."""

from pathlib import Path
from typing import Annotated

import typer

from cpuaccel.artifact.layout import CONFIG, PIPELINE
from cpuaccel.cli.arguments import (
    BackendsOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PipelineOption,
    TaskOption,
    read_audit,
    read_pipeline_options,
)
from cpuaccel.cli.console import heading, print_json, say, section
from cpuaccel.errors import StepError


def optimize(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="DIR", help="Folder to create or replace."),
    ],
    backends: BackendsOption = None,
    pipeline: PipelineOption = None,
    dtype: DtypeOption = None,
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

    The folder contains the pipeline, the report, the weights, the example with its outputs, and
    checksums. If the pipeline ends in TorchScript, it also contains the script, which runs without
    cpuaccel and transformers. If no step is applied, nothing is written and the exit code is 1.

    For example:

    - `cpuaccel optimize ./my-model --backends bettertransformer,jit --output fast/`
    """
    chosen = read_pipeline_options(backends, pipeline, dtype)

    import cpuaccel
    from cpuaccel.cli.models.cases import load_example

    loaded, inputs = load_example(model, task)
    compared = None if audit is None else read_audit(audit)
    optimized = cpuaccel.optimize(loaded, pipeline=chosen, example_inputs=inputs, audit=compared)
    report = optimized.report
    if not report.applied:
        reasons = "\n".join(f"  - {outcome}" for outcome in report.outcomes)
        raise StepError(
            f"no step of {chosen} was applied to {model}, so nothing was written:\n{reasons}"
        )
    written = optimized.save(output)
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
    say(str(report))
    section("Written", map(str, written))
    heading("Load with")
    has_config = any(path.name == CONFIG for path in written)
    say(f"  cpuaccel.load({str(output)!r}{'' if has_config else ', model'})")
    named = ", ".join(f"{name}=..." for name in inputs)
    for path in scripts:
        say(f"  or torch.jit.load({str(path)!r})({named})")
    if scripts:
        say("  which needs only torch, and returns the output's tensors in order")
    else:
        toml = next(path for path in written if path.name == PIPELINE)
        say(f"  or cpuaccel.optimize(model, pipeline={str(toml)!r}), for another model")
