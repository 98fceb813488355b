"""``cpuaccel explain``."""

from cpuaccel.cli.arguments import (
    BackendsOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PipelineOption,
    TaskOption,
    read_pipeline_options,
)
from cpuaccel.cli.console import print_json, say


def explain(
    model: ModelArgument,
    backends: BackendsOption = None,
    pipeline: PipelineOption = None,
    dtype: DtypeOption = None,
    task: TaskOption = None,
    json: JsonOption = False,
) -> None:
    """Show which steps of a pipeline would apply to a model on this machine, without applying them.

    Each step gets a yes, or a no with the reason and a remedy.

    For example:

    - `cpuaccel explain config:bert-base --backends ipex,jit --dtype bfloat16`
    """
    chosen = read_pipeline_options(backends, pipeline, dtype)

    import cpuaccel
    from cpuaccel.cli.models.cases import load_example

    loaded, inputs = load_example(model, task)
    plan = cpuaccel.explain(loaded, pipeline=chosen, example_inputs=inputs)
    if json:
        print_json({"model": model, **plan.to_dict()})
    else:
        say(str(plan))
