"""The front door: ``optimize``, ``load`` and ``backends``."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.errors import CpuaccelError, StepError
from cpuaccel.optimized import OptimizedModel, restore_generation
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.planning.plan import INPUTS_REMEDY, check_model, plan_for
from cpuaccel.plugin.backend import Backend
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.report import CallKey, Fallback, Report
from cpuaccel.variants import Variants

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
    freeze_values: bool = False,
    audit: bool | float | None = None,
    **tuning: "Unpack[TuneArguments]",
) -> OptimizedModel:
    """Make a model fast for inference on this CPU, and verify that its outputs stay the same.

    Example:

        fast = cpuaccel.optimize(model, example_inputs=batch)
        fast(**batch)
        print(fast.report)

    Args:
        model: any module, such as a Transformers model of any task.
        backends: names of backends, or ``Step``s with options, in the order to apply them. An
            empty list with a ``dtype`` only casts. Default: ``bettertransformer`` (where it suits
            the model) and ``onednn``, or ``jit`` with torch before 2.6. ``"auto"`` measures
            candidate pipelines on the example inputs, each in its own process, and uses the
            fastest whose outputs are right.
        pipeline: a TOML file or a ``Pipeline``, instead of ``backends``.
        example_inputs: a batch by parameter name, a tuple of positional inputs, or one tensor.
            Without it the model is built at the first call. ``"auto"`` requires it, and accepts a
            list of batches.
        dtype: ``float32`` or ``bfloat16`` for the whole pipeline. Default: that of the pipeline
            file, otherwise the model's own. Inputs and outputs keep the original's dtypes.
        strict: raise where a step can't be applied or the optimized model can't serve a call.
            Default: log a warning, and continue without the step or with the original.
        tolerance: largest accepted difference of an output from the original's, relative to the
            largest magnitude in that output. Default: 1e-4 for float32, 5e-2 for bfloat16, or the
            tolerance that a coarser backend such as int8 declares.
        inplace: let backends change the model itself instead of a copy of its modules that shares
            its weights. Saves memory with engines that would copy the weights.
        keep_original: False lets backends that repack weights (``onednn``, for linears) release
            the model's own memory weight by weight, so that no weight is held twice. The original
            model can't be called then; whatever needs it (a fallback, ``.original``,
            ``state_dict``, ``to``, a copy) restores its weights exactly and logs a warning. Speed
            is not measured. For ``generate``, weights that are kept in 8 bits are unloaded: the
            original can be called as before, and reads them from the checkpoint's file.
        freeze_values: capture a model although its Python code reads values of its inputs (the
            report names file and line). Calls whose values would lead it elsewhere are then
            wrong. Default: such steps are skipped.
        audit: compare calls with the original while serving. True: the first call of each new
            size class (powers of two). A number below 1: also that share of the time, such as
            0.01. False: never. A call that differs is served by the original, switches its
            variant off and is logged. Default: that of the pipeline file, otherwise True.
        **tuning: only with ``"auto"``, see ``cpuaccel.tuning.request.TuneArguments``.

    Returns:
        A module that is called like the original, with ``.original`` and ``.report``.

    Raises:
        PipelineError: the pipeline is invalid; lists every mistake.
        StepError: with ``strict``, a step can't be applied.
        LockError: the lock file can't be used.
        SignatureError: ``forward`` does not accept the example inputs.
    """
    check_model(model)
    settings = BuildSettings(
        strict=strict,
        tolerance=tolerance,
        inplace=inplace,
        keep_original=keep_original,
        freeze_values=freeze_values,
        audit=True if audit is None else audit,
    )
    if backends == "auto":
        return _optimize_auto(model, pipeline, example_inputs, dtype, settings, tuning)
    if tuning:
        raise CpuaccelError(f'{", ".join(f"{name}=" for name in tuning)} needs backends="auto"')
    plan = plan_for(model, backends, pipeline, example_inputs, dtype)
    if audit is None and plan.pipeline.audit is not None:
        settings = replace(settings, audit=plan.pipeline.audit)
    optimized = OptimizedModel(Variants(model, [plan], settings))
    if plan.signature is not None:
        prepared = optimized.prepare(plan.signature.inputs)
        if isinstance(prepared, Fallback):
            _report_not_built(optimized.report, prepared, strict)
        if not keep_original and not optimized.released:
            logger.warning("keep_original=False has no effect: no step released any weights")
    return optimized


def _report_not_built(report: Report, fallback: Fallback, strict: bool) -> None:
    """Report why the example inputs have no variant."""
    remedy = f". {INPUTS_REMEDY}" if fallback.key is CallKey.INPUT_TYPE else ""
    report.not_built = f"{fallback.reason}{remedy}"
    if fallback.key is CallKey.EMPTY:  # nothing to accelerate: no fault, strict or not
        return
    if strict:
        raise StepError(f"strict=True, but no step can be applied: {report.not_built}")
    logger.warning("no step is applied: %s", report.not_built)


def _optimize_auto(
    model: torch.nn.Module,
    pipeline: object,
    example_inputs: "Batches | None",
    dtype: object,
    settings: BuildSettings,
    tuning: "TuneArguments",
) -> OptimizedModel:
    from cpuaccel.tuning.auto import optimize_auto
    from cpuaccel.tuning.progress import warn_if_interrupted
    from cpuaccel.tuning.request import Request

    if pipeline is not None:
        raise CpuaccelError('pass one of pipeline= and backends="auto", got both')
    if dtype is not None:
        raise CpuaccelError('dtype= can\'t be used with backends="auto". Pass precisions=')
    if not settings.keep_original:
        raise CpuaccelError(
            'keep_original=False can\'t be used with backends="auto". Pass it with the pipeline '
            "that the search chose"
        )
    if example_inputs is None:
        raise CpuaccelError('backends="auto" needs example_inputs. Pass a batch or a list of them')
    request = Request.from_arguments(model, tuning, settings)
    with warn_if_interrupted() as progress:
        return optimize_auto(model, example_inputs, request, progress)


def load(
    folder: str | Path,
    model: torch.nn.Module | None = None,
    *,
    on_change: Literal["rebuild", "refuse"] = "rebuild",
    trust_engine_files: bool = False,
) -> OptimizedModel:
    """Load a folder that ``OptimizedModel.save`` wrote, and verify its outputs.

    The checksum of every file is verified; a large file that this machine has hashed before is not
    hashed again while its inode, size and times are the same. The model gets the saved weights,
    mapped from the file. The outputs of the original on the stored examples are compared with the
    stored ones, and the pipeline is applied and compared with both. What a backend keeps of a build
    is mapped, too, for the user who saved it, on the same machine with the same versions and number
    of threads; its outputs are compared with the stored ones, and the original is not called. The
    report says why something was built again (``not_restored``). No code is imported: a
    Transformers model is made from its configuration by the installed Transformers, any other
    model by the caller.

    Example:

        fast.save("fast/")
        fast = cpuaccel.load("fast/")  # a Transformers model
        fast = cpuaccel.load("mine/", MyModel())  # any other: its weights are replaced

    Args:
        folder: the folder.
        model: the model to load the weights into. It is changed only if loading succeeds.
        on_change: what to do on another machine, or with other versions of what the pipeline
            uses: ``"rebuild"`` applies and verifies the pipeline here, ``"refuse"`` raises.
        trust_engine_files: on the same machine with the same versions, run the folder's
            TorchScript instead of tracing again, and graphs and engines' files that another user
            has kept. These are programs: trust them only where you would run code from the same
            source.

    Returns:
        The optimized model, built for every way of calling that was saved, and for ``generate`` if
        it was used.

    Raises:
        ArtifactError: the folder is incomplete or changed, or the outputs differ.
    """
    from cpuaccel.artifact.reading import read_artifact

    loaded = read_artifact(Path(folder), model, on_change, trust_engine_files, restore_generation)
    if loaded.restored is not None:
        return loaded.restored
    optimized = OptimizedModel(loaded.variants)
    if loaded.generates:
        optimized.prepare_generation()
    return optimized


def backends() -> Mapping[str, type[Backend[Options]]]:
    """Return the backends that the installed plugins offer, by name."""
    return dict(plugin_host().backends)
