"""What the figures of an artifact, and its TorchScript, depend on."""

from collections.abc import Iterable

from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.binding import bind_here
from cpuaccel.plugin.fingerprint import Fingerprint
from cpuaccel.plugin.host import host
from cpuaccel.plugin.manager import plugin_host


def fingerprint(pipeline: Pipeline, packages: Iterable[str]) -> Fingerprint:
    """What matters here for a pipeline.

    Args:
        pipeline: its backends count, and what they require.
        packages: further distributions: those that the model's own code is in.

    Raises:
        PipelineError: a backend is not offered here, or an option is none of its.
    """
    (bound,) = bind_here(pipeline)
    backends = [step.backend.name for step in bound]
    return Fingerprint.here(host(), plugin_host(), backends, packages)
