"""Keeping variants in a saved folder, and making them again without a build."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from cpuaccel.artifact import layout
from cpuaccel.artifact.examples import Example
from cpuaccel.artifact.mapping.kept_build import KeptVariant, check_kept
from cpuaccel.artifact.mapping.variant_record import VariantRecord
from cpuaccel.building.apply import applying, check_applied
from cpuaccel.building.stage import Stage
from cpuaccel.building.variant import Variant
from cpuaccel.errors import BackendError, describe_error
from cpuaccel.model.precision import dtype_of
from cpuaccel.model.signature import Signature, cloned
from cpuaccel.model.torch_modes import outside_inference_mode
from cpuaccel.plugin.backend import Context
from cpuaccel.report import Difference, Outcome, Status, VariantReport
from cpuaccel.variants import Variants

logger = logging.getLogger("cpuaccel")


def keep_variant(variant: Variant, call: int, output: object) -> KeptVariant | None:
    """Keep what makes a variant's build slow; None where its last step keeps nothing.

    Args:
        variant: a variant.
        call: its place among the calls of the folder.
        output: the original's for the variant's example.
    """
    stage = variant.stage
    if not variant.applied or stage.kept is None or stage.autocast is not None or variant.numbers:
        return None
    try:
        record, kept = VariantRecord.from_variant(variant, output), stage.kept()
        check_kept(kept)
        return KeptVariant(call, record, kept)
    except Exception as error:  # code of a backend, which only makes later starts faster
        logger.debug("nothing is kept of %s", variant.signature, exc_info=True)
        logger.warning(
            "load will build again what serves %s: keeping it raised %s",
            variant.signature,
            describe_error(error),
        )
        return None


def restore_variant(kept: KeptVariant, example: Example, variants: Variants) -> Variant:
    """Make a variant again, and compare its outputs with the original's stored ones.

    Args:
        kept: what was kept.
        example: its call, with inputs that are bound to the model's parameters.
        variants: the pipeline. Its original is not called.

    Raises:
        BackendError: it can't be restored, or its outputs differ.
    """
    record, reference, (plan,) = kept.record, variants.reference, variants.plans
    planned = next(
        (one for one in reversed(plan.steps) if one.verdict and one.backend.name == record.step),
        None,
    )
    if planned is None:
        raise BackendError(f"the pipeline has no step {record.step[:100]!r} here", "Save it again")
    begun = time.perf_counter()
    backend, signature = planned.backend, Signature(reference.binder, cloned(example.inputs))
    with outside_inference_mode(), applying(backend.name) as changed, torch.no_grad():
        output = record.output.to_output(iter([leaf.tensor for leaf in example.outputs]))
        dtype = None if backend.casts else dtype_of(record.dtype)
        used = signature.copied() if dtype is None else signature.cast(dtype)
        applied = backend.restore(reference.eager, Context(plan.host, used, plan.dtype), kept.kept)
        check_applied(applied)
        stage = Stage(
            applied.model,
            backend.gives,
            dtype_of(record.dtype),
            tolerance=record.step_tolerance,
            value_ranges=record.values,
            step=backend.name,
            kept=applied.kept,
        )
        call = stage.caller(reference.binder, signature, output)
        domain = record.domain(signature)
        differences = example.compare(
            call(cloned(signature.inputs)).value, reference.eager, record.fidelity.tolerance
        )
        form = None if record.form is None else record.form.to_form(type(output), signature.axes)
    worst = max(differences, key=lambda d: d.relative, default=None)
    if worst is not None and not worst.relative <= record.fidelity.tolerance:
        raise BackendError(
            f"it does not reproduce the stored output: {worst} (tolerance "
            f"{record.fidelity.tolerance:g})",
            "Save it again",
        )
    seconds = time.perf_counter() - begun
    report = VariantReport(
        str(signature),
        _outcomes(record.outcomes, seconds, changed),
        replace(record.fidelity, differences=_with_new(record.fidelity.differences, differences)),
        record.speed,
        seconds,
        str(domain),
    )
    return Variant(
        call=call,
        stage=stage,
        signature=signature,
        report=report,
        applied=True,
        domain=domain,
        tolerance=record.tolerance,
        copied=record.copied,
        writes=record.writes,
        finite=record.finite,
        output_form=form,
    )


def _outcomes(
    outcomes: Sequence[Outcome], seconds: float, restored: Sequence[str]
) -> tuple[Outcome, ...]:
    """The outcomes of the build, with the cost of this one: all is in the last step."""
    last = max(n for n, one in enumerate(outcomes) if one.status is Status.APPLIED)
    return tuple(
        one
        if one.status is not Status.APPLIED
        else replace(
            one,
            evidence={**one.evidence, "loaded_from": layout.KEPT_TENSORS},
            seconds=seconds if number == last else 0.0,
            bytes=0,
            restored=tuple(restored) if number == last else (),
        )
        for number, one in enumerate(outcomes)
    )


def _with_new(
    before: Sequence[Difference], compared: Sequence[Difference]
) -> tuple[Difference, ...]:
    """Differences of the build's probes, and those of the example in this process."""
    return (*(one for one in before if one.probe != "example"), *compared)
