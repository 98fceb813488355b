"""``cpuaccel explain``."""

from cpuaccel.cli.arguments import (
    BackendsOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PipelineOption,
    TaskOption,
    one_pipeline,
    read_dtype,
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
    """Say what a pipeline would do to a model on this machine, without doing it.

    Every step gets a yes, or a no with its reason and a remedy.

    For example:

    - `cpuaccel explain config:bert-base --backends ipex,jit --dtype bfloat16`
    """
    read_dtype(dtype)
    chosen = one_pipeline(backends, pipeline)

    import cpuaccel
    from cpuaccel.cli.models.cases import example_inputs
    from cpuaccel.cli.models.load import load_model

    loaded = load_model(model, task)
    plan = cpuaccel.explain(
        loaded, pipeline=chosen, dtype=dtype, example_inputs=example_inputs(model, loaded)
    )
    if json:
        print_json({"model": model, **plan.to_dict()})
    else:
        say(str(plan))
