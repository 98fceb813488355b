"""Building and proving the stepper of a pipeline."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache

from cpuaccel.artifact.layout import KEPT_TENSORS
from cpuaccel.artifact.mapping.kept_build import KeptStepper
from cpuaccel.building.apply import Cost, applying, not_applied
from cpuaccel.building.settings import BuildSettings
from cpuaccel.errors import BackendError
from cpuaccel.generation.cache import unsupported
from cpuaccel.generation.casting import Casting
from cpuaccel.generation.meter import Meter, read_bandwidth
from cpuaccel.generation.proof.closeness import (
    LARGEST_DIFFERENCE,
    LARGEST_DIFFERENCE_4_BITS,
    LARGEST_DIVERGENCE_4_BITS,
    LARGEST_DIVERGENCE_BF16,
    LARGEST_DIVERGENCE_COARSE,
    Closeness,
    Limits,
)
from cpuaccel.generation.proof.probes import FEWEST_POSITIONS, prove, recheck, sample
from cpuaccel.generation.subject import Subject, encoder_of, positions_of, stepped_part
from cpuaccel.generation.weights.unloaded_weights import UnloadedWeights
from cpuaccel.model.copying import cast_copy
from cpuaccel.model.precision import default_tolerance
from cpuaccel.pipeline import Options
from cpuaccel.planning.plan import Plan, PlannedStep
from cpuaccel.plugin.backend import Backend, Stepper
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import Outcome, Report, Status

logger = logging.getLogger("cpuaccel")


@dataclass(frozen=True)
class Generation:
    """What was built for ``generate``, as shown in the report.

    Attributes:
        outcome: of the step that is to generate.
        stepper: serves ``forward`` in ``generate``; None if the step was not applied.
        closeness: of the stepper to the original.
        meter: what was generated since then.
        encoder: the report of the encoder, which is served by variants of its own.
        tokens: what the stepper has sampled for the comparison, shape (rows, tokens).
    """

    outcome: Outcome
    stepper: Stepper | None = None
    closeness: Closeness | None = None
    meter: Meter = field(default_factory=Meter)
    encoder: Report | None = None
    tokens: torch.Tensor | None = None

    def __str__(self) -> str:
        lines = [f"generate  {self.outcome}"]
        if self.closeness is not None:
            lines.append(f"fidelity  {self.closeness}")
        counted = None if self.stepper is None else self.stepper.counted
        if served := str(self.meter):
            lines.append(f"generated {served}" + (f"; {counted()}" if counted else ""))
        if self.encoder is not None:
            lines += [f"encoder   {line}" for line in str(self.encoder).splitlines()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-serializable data."""
        closeness = self.closeness
        return {
            "outcome": asdict(self.outcome),
            "fidelity": None if closeness is None else asdict(closeness),
            **self.meter.to_dict(),
            "encoder": self.encoder and self.encoder.to_dict(),
        }


def generating_step(plan: Plan) -> PlannedStep | None:
    """The step of a plan that generates: the last one that can."""
    return next((step for step in reversed(plan.steps) if step.backend.generates), None)


def verdict(model: torch.nn.Module) -> Verdict:
    """Check whether a model is one whose ``generate`` a stepper can serve."""
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel) or not isinstance(model, GenerationMixin):
        return Verdict.no(f"{name} is not a Transformers model with generate", "")
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if not dtypes <= {torch.float32, torch.bfloat16}:
        return Verdict.no(
            f"{name} has weights in {', '.join(sorted(map(str, dtypes)))}",
            "Cast it to float32 or bfloat16",
        )
    positions = positions_of(model)
    if positions is not None and positions < FEWEST_POSITIONS:
        return Verdict.no(
            f"{name} has {positions} positions, and {FEWEST_POSITIONS} are compared", ""
        )
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    if reason := unsupported(cache):
        return Verdict.no(reason, "")
    return Verdict.yes()


def build(
    planned: PlannedStep,
    plan: Plan,
    model: PreTrainedModel,
    settings: BuildSettings,
    on_move: Callable[[list[torch.nn.Parameter]], None],
) -> Generation:
    """Build the stepper of a step, and compare it with the model.

    Args:
        planned: the step that generates.
        plan: its plan.
        model: the original in eval mode.
        settings: the tolerance, and whether weights are unloaded that the stepper replaces.
        on_move: called with parameters of the model whose memory is another one.
    """
    name, backend = planned.step.backend, planned.backend
    verdict = backend.check_generation(plan.host)
    if not verdict:
        return Generation(Outcome(name, Status.SKIPPED, verdict.reason, verdict.remedy))
    logger.info("building %s for generate", name)
    bandwidth = read_bandwidth()  # before there is a stepper: it takes memory
    cost = Cost()
    cast = model if plan.dtype is None else cast_copy(model, plan.dtype)
    assert isinstance(cast, PreTrainedModel)
    unloaded = UnloadedWeights(cast, on_move)
    unload = None if settings.keep_original else unloaded.unload
    try:
        with applying(name) as restored, torch.no_grad():
            stepper = backend.stepper(stepped_part(cast), plan.host, unload)
            if plan.dtype is not None and encoder_of(model) is not None:
                stepper = replace(stepper, forward=Casting(stepper.forward, plan.dtype))
            limits = _limits(backend, stepper, cast, settings)
            with unloaded.kept_out(model):
                subject = Subject.of(model)
                tokens = sample(subject, stepper.forward)
                closeness = prove(subject, stepper.forward, tokens, limits)
    except BackendError as error:
        return Generation(not_applied(name, error))
    evidence = {**stepper.evidence}
    if unloaded.count:
        evidence["unloaded_weights"] = unloaded.count
    outcome = cost.applied(name, evidence, restored)
    meter = Meter(stepper.bytes_per_step, bandwidth)
    return Generation(outcome, stepper, closeness, meter, tokens=tokens)


def restore(
    planned: PlannedStep,
    plan: Plan,
    model: PreTrainedModel,
    settings: BuildSettings,
    saved: KeptStepper,
    ids: torch.Tensor,
    logits: torch.Tensor,
) -> Generation:
    """Restore the stepper of a step, and compare it with the original's stored logits.

    Args:
        planned: the step that generates.
        plan: its plan.
        model: the original in eval mode, which is not called.
        settings: the tolerance.
        saved: what the step has kept.
        ids: tokens, shape (1, tokens).
        logits: the original's, shape (1, tokens, vocabulary).

    Raises:
        BackendError: it can't be restored, or its logits differ.
    """
    name, backend, cost = planned.step.backend, planned.backend, Cost()
    cast = model if plan.dtype is None else cast_copy(model, plan.dtype)
    with applying(name) as restored, torch.no_grad():
        stepper = backend.restore_stepper(cast, plan.host, saved.kept)
        limits = _limits(backend, stepper, cast, settings)
        closeness = recheck(Subject(model), stepper.forward, ids, logits, limits)
    outcome = cost.applied(name, {**stepper.evidence, "loaded_from": KEPT_TENSORS}, restored)
    meter = Meter(stepper.bytes_per_step, saved.bandwidth)
    return Generation(outcome, stepper, closeness, meter, tokens=ids)


def _limits(
    backend: Backend[Options], stepper: Stepper, cast: torch.nn.Module, settings: BuildSettings
) -> Limits:
    """How close logits must be, for a model in the pipeline's precision."""
    dtypes = {p.dtype for p in cast.parameters() if p.is_floating_point()}
    if settings.tolerance is not None:
        return Limits(settings.tolerance)
    return Limits(
        default_tolerance(dtypes),
        _divergence(backend, stepper, dtypes),
        LARGEST_DIFFERENCE_4_BITS if stepper.in_4_bits else LARGEST_DIFFERENCE,
    )


def _divergence(
    backend: Backend[Options], stepper: Stepper, dtypes: set[torch.dtype]
) -> float | None:
    """The limit of the divergence; None to limit the differences of the logits."""
    if stepper.in_4_bits:
        return LARGEST_DIVERGENCE_4_BITS
    if backend.tolerance > 0:
        return LARGEST_DIVERGENCE_COARSE
    return LARGEST_DIVERGENCE_BF16 if torch.bfloat16 in dtypes else None
