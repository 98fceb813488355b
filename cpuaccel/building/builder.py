"""Building variants of one model by one plan."""

import logging
import time
from dataclasses import replace

from cpuaccel.building.domain import find_domain
from cpuaccel.building.global_settings import restored_random_state, restored_settings
from cpuaccel.building.pipeline_run import PipelineRun, SharedSteps
from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.stage import Call, Output, Stage, autocast
from cpuaccel.building.variant import SavedBuild, Variant
from cpuaccel.checks.axis_groups import AxisGroups
from cpuaccel.checks.compare import has_nonfinite
from cpuaccel.checks.dependence import study
from cpuaccel.checks.output_form import OutputForm
from cpuaccel.errors import StepError
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import Inputs, Signature, cloned
from cpuaccel.model.torch_modes import outside_inference_mode
from cpuaccel.planning.plan import Plan
from cpuaccel.plugin.backend import Form
from cpuaccel.report import CAST_STEP, Outcome, Status, VariantReport
from cpuaccel.timing import Ratio, interleave

logger = logging.getLogger("cpuaccel")

SPEED_SECONDS = 0.6
SPEED_PAIRS = 7


class Builder:
    """Builds variants of one model by one plan.

    Attributes:
        plan: the steps, with their verdicts.
        settings: see ``BuildSettings``.
        unstable: why no call can be captured, since the model itself changes what later calls
            return; found out by any build.
        saved: builds of an earlier process, by the signature of the call.
    """

    def __init__(self, plan: Plan, reference: Reference, settings: BuildSettings) -> None:
        self.plan = plan
        self.settings = settings
        self._reference = reference
        self._logged: set[str] = set()
        self.unstable = ""
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
        with (
            restored_settings(),  # the first symbolic run imports Dynamo, which sets variables
            restored_random_state(),
            autocast(None),
            outside_inference_mode(),
        ):
            signature = self._signature(inputs)
            logger.info("building %s for %s", self.plan.pipeline, signature)
            if self._hooks_refuse_all():
                return self._refused(signature, begun)
            reference.weights.reset()
            state = reference.state.for_copy(reference.eager)
            with reference.restored_buffers():
                found = study(
                    reference.eager,
                    reference.run,
                    reference.binder,
                    signature,
                    captured=self.plan.captures,
                    released=not self.settings.keep_original,
                )
                reference.weights.ignore_written_buffers()
            written = state.written()
            reference.state.ignore(written)
            found = found.with_written(written, reference.original, reference.eager)
            self.unstable = self.unstable or found.unstable
            found = replace(found, unstable=self.unstable)
            run = PipelineRun(
                self.plan, self.settings, reference, self._shared, signature, found, self._log
            )
            saved = self.saved.get(str(signature))
            if saved is None or not run.use(saved):
                run.apply_steps()
            applied = any(outcome.status is Status.APPLIED for outcome in run.outcomes)
            call: Call = self._call_original
            speed = None
            if applied:
                call = run.caller(run.stage)
                if self.settings.measure_speed and reference.released.complete:
                    speed = self._measure_speed(call, cloned(signature.inputs))
        seconds = time.perf_counter() - begun
        if self.settings.inplace or reference.released:
            reference.accept_changes()  # steps have made them
        verified = run.verified
        domain = find_domain(
            signature,
            found.groups,
            captured=applied and run.stage.form is not Form.MODULE,
            guards=found.guards,
            varied=verified.varied if verified else {},
            frozen=frozenset(verified.fidelity.frozen if verified else ()),
            values=run.stage.value_ranges or {},
        )
        return Variant(
            call=call,
            stage=run.stage,
            signature=signature,
            report=VariantReport(
                str(signature),
                tuple(run.outcomes),
                verified.fidelity if verified else None,
                speed,
                seconds,
                str(domain),
            ),
            applied=applied,
            domain=domain,
            tolerance=run.tolerance(run.stage),
            copied=verified.overwritten if verified else frozenset(),
            writes=bool(found.probes.example.written),
            finite=not has_nonfinite(tensors(found.probes.example.output)),
            output_form=OutputForm.infer(found.probes, signature.axes),
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
            domain=find_domain(signature, AxisGroups.from_signature(signature)),
            tolerance=0.0,
            copied=frozenset(),
            writes=False,
            finite=False,
            output_form=None,
        )

    def _signature(self, inputs: Inputs) -> Signature:
        """The plan's signature if it is for these inputs; its `accepts` verdicts then hold."""
        planned = self.plan.signature
        if planned is not None and planned.inputs is inputs:
            return planned
        # The model may write to them, and compilers refuse tensors of inference mode.
        return Signature(self._reference.binder, cloned(inputs))

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
