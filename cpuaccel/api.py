"""The front door: ``optimize`` and ``explain``."""

import functools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch

from cpuaccel.backend import Backend, Options
from cpuaccel.binding import bind
from cpuaccel.build import Builder
from cpuaccel.config import read_pipeline
from cpuaccel.errors import CpuaccelError, PipelineError
from cpuaccel.hostinfo import host
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline, Step
from cpuaccel.plan import Plan, make_plan
from cpuaccel.plugins import disable_plugins, plugin_host
from cpuaccel.precision import dtype_name, dtype_of
from cpuaccel.report import Report
from cpuaccel.signature import ExampleInputs, Signature

if TYPE_CHECKING:
    from cpuaccel.tuning.request import TuneArguments
    from cpuaccel.tuning.workload import Batches

logger = logging.getLogger("cpuaccel")


def optimize(
    model: torch.nn.Module,
    backends: Iterable[str | Step] | None = None,
    *,
    pipeline: str | Path | Pipeline | None = None,
    example_inputs: "Batches | None" = None,
    dtype: torch.dtype | str | None = None,
    strict: bool = False,
    tolerance: float | None = None,
    inplace: bool = False,
    keep_original: bool = True,
    **tuning: "Unpack[TuneArguments]",
) -> OptimizedModel:
    """Make a model fast for inference on this CPU, and check that its answers stay the same.

    Example::

        fast = cpuaccel.optimize(model, backends=["bettertransformer", "jit"])
        fast(**batch)
        print(fast.report)

    Args:
        model: any module; Transformers models of any task.
        backends: names of backends, or ``Step``s with options, in the order to apply them. An
            empty list with a ``dtype`` just casts. ``"auto"`` tries all there are on the example
            inputs, each in a process of its own, and takes the fastest whose answers hold.
        pipeline: instead of ``backends``: a TOML file, or a ``Pipeline``.
        example_inputs: a batch by parameter name, a tuple of positional inputs or one tensor.
            Without it the first call builds, and waits for it. With ``"auto"`` it is required, and
            may be a list of batches.
        dtype: ``float32`` or ``bfloat16`` for the whole pipeline; by default the pipeline file's,
            else the model's own. Inputs and answers keep the original's dtypes.
        strict: raise where a step can't be applied or the optimized model can't answer, instead
            of warning and going on without it.
        tolerance: largest accepted difference of an output from the original's, relative to the
            largest magnitude in that output. Default 1e-4 for float32, 5e-2 for bfloat16, and more
            with a backend that says so of itself, as int8 does.
        inplace: let backends change the model itself, instead of a copy of its modules that shares
            its weights; saves memory with engines that would copy the weights too.
        keep_original: False lets backends that lay weights out anew take the model's own memory
            for it, weight by weight, so that none is held twice (``onednn``, its linears). The
            model given can't be called then; whatever needs it (a call that the optimized model
            can't answer, ``.original``, ``state_dict``, ``to``, a copy) brings its weights back,
            exactly, and says so. Speed is not compared with the original's.
        **tuning: with ``"auto"``, see ``cpuaccel.tuning.request.TuneArguments``: ``budget``,
            ``target``, ``precisions``, ``metric``, ``max_drop``, ``threads``, ``traffic``,
            ``lock``, ``cache``, ``time_limit``, ``memory_limit``.

    Returns:
        A module that is called like the original, with ``.original`` and ``.report``.

    Raises:
        PipelineError: the pipeline can't be right; names every mistake.
        StepError: with ``strict``, what could not be applied.
        LockError: with ``lock``, a lockfile that can't be used.
        SignatureError: the example inputs are none that ``forward`` takes.
    """
    if backends == "auto":
        return _optimize_auto(
            model,
            example_inputs,
            tuning,
            refused={
                "pipeline": pipeline,
                "dtype": dtype,
                "keep_original": None if keep_original else False,
            },
            strict=strict,
            tolerance=tolerance,
            inplace=inplace,
        )
    if tuning:
        raise CpuaccelError(
            f"{', '.join(tuning)} belongs to a search, but the pipeline was given. Pass "
            "backends='auto', or leave it out"
        )
    plan = explain(
        model,
        backends,
        pipeline=pipeline,
        example_inputs=example_inputs,
        dtype=dtype,
        strict=strict,
        tolerance=tolerance,
        inplace=inplace,
    )
    builder = _builder(
        plan,
        model,
        strict=strict,
        tolerance=tolerance,
        inplace=inplace,
        keep_original=keep_original,
    )
    dtype_in_force = plan.dtype_in_force
    report = Report(
        str(plan.pipeline),
        "the model's own" if dtype_in_force is None else dtype_name(dtype_in_force),
        tuple(planned.skipped for planned in plan.steps if not planned.verdict),
    )
    recreate = functools.partial(
        optimize,
        pipeline=plan.pipeline,
        strict=strict,
        tolerance=tolerance,
        inplace=inplace,
        keep_original=keep_original,
    )
    optimized = OptimizedModel(builder, report, recreate)
    if example_inputs is not None:
        optimized.prepare(builder.binder.bind_example(example_inputs))
        if not keep_original and not builder.released:
            logger.warning(
                "keep_original=False was asked for, but no step took weights over: the original's "
                "are kept"
            )
    return optimized


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
    return _builder(plan, model, strict=strict, tolerance=tolerance, inplace=inplace, look=False)


def _builder(
    plan: Plan,
    model: torch.nn.Module,
    *,
    strict: bool,
    tolerance: float | None,
    inplace: bool,
    keep_original: bool = True,
    look: bool = True,
) -> Builder:
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
        host=host(),
        plugins=plugin_host(),
        tolerance=tolerance,
        strict=strict,
        inplace=inplace,
        keep_original=keep_original,
        look=look,
    )


def _optimize_auto(
    model: torch.nn.Module,
    example_inputs: "Batches | None",
    tuning: "TuneArguments",
    *,
    refused: Mapping[str, object],
    strict: bool,
    tolerance: float | None,
    inplace: bool,
) -> OptimizedModel:
    from cpuaccel.tuning.auto import optimize_auto
    from cpuaccel.tuning.request import Request

    remedies = {
        "pipeline": "pass one of the two",
        "dtype": "pass precisions=",
        "keep_original": "leave it out, and pass it with the pipeline that was chosen",
    }
    for name, remedy in remedies.items():
        if refused[name] is not None:
            raise CpuaccelError(f"{name} was given with backends='auto': {remedy}")
    _check(model, tolerance)
    if example_inputs is None:
        raise CpuaccelError(
            "backends='auto' was asked for without example_inputs, on which candidates are "
            "measured. Pass a batch, or a list of batches"
        )
    request = Request.of(model, tuning, tolerance=tolerance, strict=strict)
    return optimize_auto(model, example_inputs, request, inplace=inplace)


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
    _check(model, tolerance)
    chosen = _pipeline(backends, pipeline, dtype_of(dtype))
    disable_plugins(chosen.disable_plugins, chosen.source)
    bound = bind(chosen, plugin_host())
    if isinstance(model, torch.jit.ScriptModule):
        raise PipelineError(
            f"pipeline {chosen} on a ScriptModule",
            [
                f"{step.backend.name} takes a {step.backend.takes}, but the model given is a "
                "script already: pass the eager module that it was made of"
                for step in bound[:1]
            ],
        )
    signature = None if example_inputs is None else Signature.of(model, example_inputs)
    return make_plan(chosen, bound, host(), model, signature)


def backends() -> Mapping[str, type[Backend[Options]]]:
    """The backends that this environment's plugins offer, by name."""
    return dict(plugin_host().backends)


def _check(model: object, tolerance: float | None) -> None:
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
        return Pipeline.of(backends, dtype)
    read = pipeline if isinstance(pipeline, Pipeline) else read_pipeline(pipeline or "")
    if dtype is None:
        return read
    return Pipeline(read.steps, dtype, read.source, read.disable_plugins)
