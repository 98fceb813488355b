"""``cpuaccel explain``."""

from typing import TYPE_CHECKING

from cpuaccel.cli.arguments import (
    BackendsOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PipelineOption,
    TaskOption,
    is_auto,
    read_pipeline_options,
    read_precision,
    refuse_file,
)
from cpuaccel.cli.console import print_json, say_wrapped

if TYPE_CHECKING:
    import torch

    from cpuaccel.model.signature import Inputs
    from cpuaccel.tuning.space import Space


def explain(
    model: ModelArgument,
    backends: BackendsOption = None,
    pipeline: PipelineOption = None,
    dtype: DtypeOption = None,
    task: TaskOption = None,
    json: JsonOption = False,
) -> None:
    """Show which steps of a pipeline would apply to a model on this machine, without applying them.

    Each step gets a yes, or a no with the reason and a remedy. With `--backends auto` it lists
    what a search would try, the most promising first, and what it would leave out.

    For example:

    - `cpuaccel explain config:bert-base --backends ipex,jit --dtype bfloat16`

    - `cpuaccel explain config:bert-base --backends auto`
    """
    auto = is_auto(backends)
    if auto:
        refuse_file(pipeline)
        precision = read_precision(dtype)
    else:
        chosen = read_pipeline_options(backends, pipeline, dtype)

    import cpuaccel
    from cpuaccel.cli.models.cases import load_example

    loaded, inputs = load_example(model, task)
    if auto:
        _show_space(model, _space(loaded.float(), inputs, precision), json=json)
        return
    plan = cpuaccel.explain(loaded, pipeline=chosen, example_inputs=inputs)
    if json:
        print_json({"model": model, **plan.to_dict()})
    else:
        say_wrapped(str(plan))


def _space(model: "torch.nn.Module", inputs: "Inputs", precision: str) -> "Space":
    from cpuaccel.model.signature import Signature
    from cpuaccel.plugin.host import host
    from cpuaccel.plugin.manager import plugin_host
    from cpuaccel.tuning.request import Request
    from cpuaccel.tuning.space import Space

    request = Request.from_arguments(model, {"precisions": [precision]})
    return Space(
        plugin_host(),
        host(),
        model,
        Signature.from_inputs(model, inputs),
        request.precisions,
        request.widest_backend_tolerance,
    )


def _show_space(name: str, space: "Space", *, json: bool) -> None:
    from dataclasses import asdict

    if json:
        print_json(
            {
                "model": name,
                "candidates": [
                    {"pipeline": candidate.name, "precision": candidate.precision}
                    for candidate in space.waiting
                ],
                "not_tried": [asdict(one) for one in space.not_tried],
            }
        )
        return
    lines = [f"search    {len(space.waiting)} candidates, each measured in a process of its own"]
    lines += [f"try       {candidate}" for candidate in space.waiting]
    lines += [f"leave out {one.name}: {one.reason}" for one in space.not_tried]
    say_wrapped("\n".join(lines))
