"""Building variants of one model by one plan."""

import logging
import time
from dataclasses import replace

import torch

from cpuaccel.building.pipeline_run import PipelineRun, SharedSteps
from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.stage import Call, Output, Stage, autocast
from cpuaccel.building.variant import SavedBuild, Variant
from cpuaccel.checks.compare import has_nonfinite
from cpuaccel.checks.output_form import OutputForm
from cpuaccel.checks.probes import make_probes
from cpuaccel.errors import StepError
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import Inputs, Signature
from cpuaccel.model.torch_modes import outside_inference_mode
from cpuaccel.planning.plan import Plan
from cpuaccel.plugin.backend import Form
from cpuaccel.report import CAST_STEP, Outcome, Status, VariantReport
from cpuaccel.timing import Ratio, interleave

logger = logging.getLogger("cpuaccel")

SPEED_SECONDS = 1.0
SPEED_PAIRS = 7


class Builder:
    """Builds variants of one model by one plan.

    Attributes:
        plan: the steps, with their verdicts.
        settings: see ``BuildSettings``.
        saved: builds of an earlier process, by the signature of the call.
    """

    def __init__(self, plan: Plan, reference: Reference, settings: BuildSettings) -> None:
        self.plan = plan
        self.settings = settings
        self._reference = reference
        self._logged: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Discard what earlier builds share, since the original's weights have changed."""
        self._shared = SharedSteps()
        self.saved: dict[str, SavedBuild] = {}

    def build(self, inputs: Inputs) -> Variant:
        """Apply the plan for calls like this one.

        Raises:
            StepError: a step changed the model that it was given; or with ``settings.strict``, a
                step was not applied.
        """
        reference, begun = self._reference, time.perf_counter()
        with autocast(None), outside_inference_mode():
            signature = self._signature(inputs)
            logger.info("building %s for %s", self.plan.pipeline, signature)
            if self._hooks_refuse_all():
                return self._refused(signature, begun)
            reference.weights.reset()
            state = reference.state.for_copy(reference.eager)
            probes = make_probes(reference.run, signature)
            reference.weights.ignore_written_buffers()
            reference.state.ignore(state.written())
            run = PipelineRun(
                self.plan, self.settings, reference, self._shared, signature, probes, self._log
            )
            saved = self.saved.get(str(signature))
            if saved is None or not run.use(saved):
                run.apply_steps()
            applied = any(outcome.status is Status.APPLIED for outcome in run.outcomes)
            call: Call = self._call_original
            fidelity, speed = None, None
            if applied:
                call, fidelity = run.caller(run.stage), run.fidelity
                if self.settings.measure_speed and reference.released.complete:
                    speed = self._measure_speed(call, signature.inputs)
        seconds = time.perf_counter() - begun
        if self.settings.inplace or reference.released:
            reference.accept_changes()  # steps have made them
        return Variant(
            call=call,
            stage=run.stage,
            signature=signature,
            report=VariantReport(str(signature), tuple(run.outcomes), fidelity, speed, seconds),
            applied=applied,
            frozen=fidelity is not None and bool(fidelity.frozen),
            finite=not has_nonfinite(tensors(probes.example.output)),
            output_form=OutputForm.infer(probes, signature.axes),
        )

    def _hooks_refuse_all(self) -> bool:
        """Whether hooks of the caller allow no step: probes would only call them in vain."""
        reference, dtype = self._reference, self.plan.dtype
        if not reference.late_hooks:
            return True
        steps = [planned.backend for planned in self.plan.steps if planned.verdict]
        return (
            bool(steps)
            and dtype is None
            and not any(reference.hooks_verdict(backend.gives) for backend in steps)
        )

    def _refused(self, signature: Signature, begun: float) -> Variant:
        """Return a variant that calls the original, because of hooks of the caller."""
        outcomes = []
        for planned in self.plan.steps:
            outcome = planned.skipped
            if planned.verdict:
                verdict = self._reference.hooks_verdict(planned.backend.gives)
                outcome = replace(planned, verdict=verdict).skipped
                self._log(outcome, planned.step.optional)
            outcomes.append(outcome)
        if self.plan.dtype is not None and not self.plan.steps:
            late = self._reference.late_hooks
            outcomes.append(Outcome(CAST_STEP, Status.SKIPPED, late.reason, late.remedy))
            self._log(outcomes[-1], optional=False)
        seconds = time.perf_counter() - begun
        return Variant(
            call=self._call_original,
            stage=Stage(self._reference.eager, Form.MODULE),
            signature=signature,
            report=VariantReport(str(signature), tuple(outcomes), None, None, seconds),
            applied=False,
            frozen=False,
            finite=False,
            output_form=None,
        )

    def _signature(self, inputs: Inputs) -> Signature:
        """The plan's signature if it is for these inputs; its `accepts` verdicts then hold."""
        if any(isinstance(v, torch.Tensor) and v.is_inference() for v in inputs.values()):
            # Compilers and in-place operations refuse tensors of inference mode.
            inputs = {
                name: value.clone() if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
        planned = self.plan.signature
        if planned is not None and planned.inputs is inputs:
            return planned
        return Signature(self._reference.binder, inputs)

    def _call_original(self, inputs: Inputs) -> Output:
        output = self._reference.run(inputs)
        return Output(output, tensors(output))

    def _measure_speed(self, call: Call, inputs: Inputs) -> Ratio:
        times = interleave(
            {"original": lambda: self._reference.run(inputs), "optimized": lambda: call(inputs)},
            rounds=SPEED_PAIRS,
            seconds=SPEED_SECONDS,
            warmup=0,  # both have run on the probes
        )
        return Ratio.from_times(times["original"], times["optimized"])

    def _log(self, outcome: Outcome, optional: bool) -> None:
        """Report a step that was not applied: once per builder, however many variants meet it."""
        if outcome.status is Status.APPLIED or optional:
            return
        if self.settings.strict:
            raise StepError(f"strict=True, but {outcome}")
        if str(outcome) not in self._logged:
            self._logged.add(str(outcome))
            logger.warning("%s", outcome)
