"""The front door: ``optimize``."""

import functools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch

from cpuaccel.building.builders import builder_for
from cpuaccel.errors import CpuaccelError
from cpuaccel.model.precision import dtype_name
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.planning.explain import check, explain
from cpuaccel.plugin.backend import Backend
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.report import Report

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
    builder = builder_for(
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
    from cpuaccel.tuning.progress import told_if_interrupted
    from cpuaccel.tuning.request import Request

    remedies = {
        "pipeline": "pass one of the two",
        "dtype": "pass precisions=",
        "keep_original": "leave it out, and pass it with the pipeline that was chosen",
    }
    for name, remedy in remedies.items():
        if refused[name] is not None:
            raise CpuaccelError(f"{name} was given with backends='auto': {remedy}")
    check(model, tolerance)
    if example_inputs is None:
        raise CpuaccelError(
            "backends='auto' was asked for without example_inputs, on which candidates are "
            "measured. Pass a batch, or a list of batches"
        )
    request = Request.of(model, tuning, tolerance=tolerance, strict=strict)
    with told_if_interrupted() as progress:
        return optimize_auto(model, example_inputs, request, inplace=inplace, progress=progress)


def backends() -> Mapping[str, type[Backend[Options]]]:
    """The backends that this environment's plugins offer, by name."""
    return dict(plugin_host().backends)
