"""Every hook of cpuaccel, each with an example. A plugin is a module that implements some of them.

cpuaccel finds a plugin through the entry-point group ``cpuaccel`` of its distribution::

    [project.entry-points.cpuaccel]
    halve = "halve_plugin"
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

    Called once per process, when backends are first needed. Must not import an engine.

    Example:

        import cpuaccel

        class Halve(cpuaccel.Backend[cpuaccel.Options]):
            name = "halve"
            summary = "halves the number of layers"
            takes = cpuaccel.Form.MODULE
            gives = cpuaccel.Form.MODULE

            def apply(self, model, context):
                return cpuaccel.Applied(halved(model), evidence={"layers": 6})

        @cpuaccel.hookimpl
        def cpuaccel_backends():
            return [Halve]

    Returns:
        Backend classes. If another plugin already offers one of their names, or one breaks the
        contract, no backend of this plugin is available.
    """
    raise AssertionError("a hook specification must not be called")


@hookspec
def cpuaccel_before_step(step: Step, model: torch.nn.Module) -> None:
    """Observe a step before it is applied. Exceptions are logged and otherwise ignored.

    Example:

        @cpuaccel.hookimpl
        def cpuaccel_before_step(step, model):
            print("applying", step.backend)

    Args:
        step: the backend's name and its options.
        model: the model before the step. Must not be changed.
    """


@hookspec
def cpuaccel_after_step(step: Step, outcome: Outcome) -> None:
    """Observe the outcome of a step. Exceptions are logged and otherwise ignored.

    Example:

        @cpuaccel.hookimpl
        def cpuaccel_after_step(step, outcome):
            metrics.gauge(f"cpuaccel.{step.backend}.seconds", outcome.seconds)

    Args:
        step: the backend's name and its options.
        outcome: applied, skipped or failed, with reason, evidence and cost.
    """
