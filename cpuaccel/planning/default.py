"""The pipeline that is used where the caller names none."""

from cpuaccel.errors import PipelineError
from cpuaccel.pipeline import Pipeline, Step
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.manager import plugin_host

_RECIPES: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    # Before Transformers 5, bettertransformer is optimum's, which onednn can't capture.
    (("torch>=2.6", "transformers>=5"), ("bettertransformer",), "onednn"),
    (("torch>=2.6",), (), "onednn"),
    ((), (), "jit"),
)
"""The best first: requirements, optional steps (skipped quietly for models of other kinds), and
the last step."""


def default_pipeline(on: Host) -> Pipeline:
    """Return a pipeline that suits most models on this host; nothing is measured.

    Raises:
        PipelineError: no installed plugin offers its backends.
    """
    offered = plugin_host().backends
    for requirements, optional, last in _RECIPES:
        if {*optional, last} <= set(offered) and on.meets(requirements):
            steps = (*(Step(name, optional=True) for name in optional), Step(last))
            return Pipeline(steps, source="the default")
    raise PipelineError(
        "optimize()",
        [
            'there is no default pipeline here. Name the backends, or pass backends="auto" to '
            f"measure which is fastest. Available: {', '.join(sorted(offered))}"
        ],
    )
