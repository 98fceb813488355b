"""Saying what would be done, without doing it: ``explain``."""

from collections.abc import Iterable
from pathlib import Path

import torch

from cpuaccel.errors import CpuaccelError, PipelineError
from cpuaccel.model.precision import dtype_of
from cpuaccel.model.signature import ExampleInputs, Signature
from cpuaccel.pipeline import Pipeline, Step
from cpuaccel.planning.plan import Plan, make_plan
from cpuaccel.planning.resolve import resolve_here
from cpuaccel.planning.toml import read_pipeline
from cpuaccel.plugin.host import host
from cpuaccel.plugin.manager import plugin_host


def explain(
    model: torch.nn.Module,
    backends: Iterable[str | Step] | None = None,
    *,
    pipeline: str | Path | Pipeline | None = None,
    example_inputs: ExampleInputs | None = None,
    dtype: torch.dtype | str | None = None,
    strict: bool = False,
    tolerance: float | None = None,
    inplace: bool = False,
) -> Plan:
    """Say what ``optimize`` would do with the same arguments, without doing it.

    Returns:
        A verdict for each step, with a reason and a remedy where it is a no. Without
        ``example_inputs`` the verdicts speak of this host only.

    Raises:
        PipelineError: the pipeline can't be right; names every mistake.
        SignatureError: the example inputs are none that ``forward`` takes.
    """
    check(model, tolerance)
    chosen = _pipeline(backends, pipeline, dtype_of(dtype))
    (resolved,) = resolve_here(chosen)
    if isinstance(model, torch.jit.ScriptModule):
        raise PipelineError(
            f"pipeline {chosen} on a ScriptModule",
            [
                f"{step.backend.name} takes a {step.backend.takes}, but the model given is a "
                "script already: pass the eager module that it was made of"
                for step in resolved[:1]
            ],
        )
    signature = None if example_inputs is None else Signature.from_inputs(model, example_inputs)
    return make_plan(chosen, resolved, host(), model, signature)


def check(model: object, tolerance: float | None) -> None:
    """Refuse what is no model and what is no tolerance.

    Raises:
        CpuaccelError: says which.
    """
    if not isinstance(model, torch.nn.Module):
        raise CpuaccelError(
            f"a {type(model).__name__} was given as the model. Pass a torch.nn.Module"
        )
    if tolerance is not None and not tolerance >= 0:
        raise CpuaccelError(f"tolerance={tolerance!r} was asked for. Pass a number from 0 up")


def _pipeline(
    backends: Iterable[str | Step] | None,
    pipeline: str | Path | Pipeline | None,
    dtype: torch.dtype | None,
) -> Pipeline:
    if (backends is None) == (pipeline is None):
        given = "neither" if backends is None else "both"
        offered = ", ".join(sorted(plugin_host().backends))
        raise PipelineError(
            "optimize()",
            [
                f"{given} of backends and pipeline were given: pass one, for instance "
                f"backends=['jit']. Offered here: {offered}"
            ],
        )
    if backends is not None:
        return Pipeline.from_steps(backends, dtype)
    read = pipeline if isinstance(pipeline, Pipeline) else read_pipeline(pipeline or "")
    if dtype is None:
        return read
    return Pipeline(read.steps, dtype, read.source, read.disable_plugins)
