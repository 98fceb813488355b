"""Every hook of cpuaccel, each with an example. A plugin is a module with some of these.

Name the module in your distribution's entry points, group ``cpuaccel``, and it is found::

    [options.entry_points]
    cpuaccel =
        halve = halve_plugin
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import torch

    from cpuaccel.pipeline import Options, Step
    from cpuaccel.plugin.backend import Backend
    from cpuaccel.report import Outcome

PROJECT = "cpuaccel"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def cpuaccel_backends() -> list[type[Backend[Options]]]:
    """Offer backends.

    Called once per process, when backends are first asked for. Must import no engine.

    Example::

        import cpuaccel

        class Halve(cpuaccel.Backend[cpuaccel.Options]):
            name = "halve"
            summary = "computes half of it"
            takes = cpuaccel.Form.MODULE
            gives = cpuaccel.Form.MODULE

            def apply(self, model, context):
                return cpuaccel.Applied(halved(model), evidence={"layers": 6})

        @cpuaccel.hookimpl
        def cpuaccel_backends():
            return [Halve]

    Returns:
        Backend classes. A name that another plugin offers already sets this plugin aside.
    """
    raise AssertionError("a specification is never called")


@hookspec
def cpuaccel_before_step(step: Step, model: torch.nn.Module) -> None:
    """Observe a step that is about to be applied. What it raises is logged, and goes no further.

    Example::

        @cpuaccel.hookimpl
        def cpuaccel_before_step(step, model):
            print("applying", step.backend)

    Args:
        step: the backend's name and its options.
        model: the model as it stands before the step. Must not be changed.
    """


@hookspec
def cpuaccel_after_step(step: Step, outcome: Outcome) -> None:
    """Observe what a step came to. What it raises is logged, and goes no further.

    Example::

        @cpuaccel.hookimpl
        def cpuaccel_after_step(step, outcome):
            metrics.gauge(f"cpuaccel.{step.backend}.seconds", outcome.seconds)

    Args:
        step: the backend's name and its options.
        outcome: applied, skipped or failed, with reason, evidence and cost.
    """
