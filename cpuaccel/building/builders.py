"""From a plan to what builds by it."""

import logging

import torch

from cpuaccel.building.builder import Builder
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.explain import explain
from cpuaccel.planning.plan import Plan
from cpuaccel.plugin.manager import plugin_host

logger = logging.getLogger("cpuaccel")


def builder_for(
    plan: Plan,
    model: torch.nn.Module,
    *,
    strict: bool,
    tolerance: float | None,
    inplace: bool,
    keep_original: bool = True,
    look: bool = True,
) -> Builder:
    """What builds variants by a plan, after telling what this host can't have of it.

    Args:
        plan: what to do.
        model: the original.
        strict: see ``optimize``, as the next three.
        tolerance: the same.
        inplace: the same.
        keep_original: the same.
        look: whether to hold the speed of what was built against the original's.

    Raises:
        StepError: with ``strict``, what this host can't have.
    """
    if strict:
        plan.require()
    for planned in plan.steps:
        if not planned.verdict and not planned.step.optional:
            logger.warning("%s", planned.skipped)
    if not plan.precision:
        logger.warning("bfloat16 is not used: %s", plan.precision)
    return Builder(
        plan,
        model,
        plugins=plugin_host(),
        tolerance=tolerance,
        strict=strict,
        inplace=inplace,
        keep_original=keep_original,
        look=look,
    )


def make_builder(
    model: torch.nn.Module,
    pipeline: Pipeline,
    *,
    strict: bool,
    tolerance: float | None,
    inplace: bool,
) -> Builder:
    """What builds variants by a pipeline that is measured elsewhere. Args are ``optimize``'s.

    Raises:
        PipelineError: the pipeline can't be right; names every mistake.
        StepError: with ``strict``, what this host can't have.
    """
    plan = explain(model, pipeline=pipeline, tolerance=tolerance)
    return builder_for(plan, model, strict=strict, tolerance=tolerance, inplace=inplace, look=False)
