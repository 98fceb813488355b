"""Applying the steps of a plan for one way of calling the model, and verifying each."""

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from cpuaccel.building.apply import Cost, apply_backend, not_applied
from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.snapshot import Snapshot
from cpuaccel.building.stage import Call, Stage
from cpuaccel.building.variant import SavedBuild
from cpuaccel.checks.dependence import Study
from cpuaccel.checks.verify import OutputMismatchError, Verified, verify
from cpuaccel.errors import BackendError, StepError
from cpuaccel.model.copying import shared_copy
from cpuaccel.model.output import Structure
from cpuaccel.model.precision import default_tolerance, dtype_name
from cpuaccel.model.signature import Signature
from cpuaccel.planning.plan import Plan, PlannedStep, ask
from cpuaccel.plugin.backend import Applied, Context, Form
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import CAST_STEP, Outcome, Status

logger = logging.getLogger("cpuaccel")


@dataclass
class SharedSteps:
    """Modules that all variants of a builder share, so that their weights exist once.

    Attributes:
        applied: for each step from module to module, the stage before it and its result.
        cast: the model in the precision of the pipeline.
    """

    applied: dict[int, tuple[Stage, Applied, Outcome]] = field(default_factory=dict)
    cast: Stage | None = None


@dataclass
class PipelineRun:
    """One run of a plan's steps.

    Attributes:
        log: receives each outcome, and whether the step is optional.
        stage: the result of the last step that was applied and verified.
        outcomes: one for each step so far.
        verified: how close ``stage`` is to the original; None before any step was applied.
    """

    plan: Plan
    settings: BuildSettings
    reference: Reference
    shared: SharedSteps
    signature: Signature
    study: Study
    log: Callable[[Outcome, bool], None]
    outcomes: list[Outcome] = field(default_factory=list)
    verified: Verified | None = None

    def __post_init__(self) -> None:
        self.stage = Stage(self.reference.eager, Form.MODULE)

    def use(self, saved: SavedBuild) -> bool:
        """Verify a saved build and take it over; return whether its outputs are right."""
        try:
            self.verified = self._verify(saved.stage)
        except OutputMismatchError as error:
            logger.warning("the saved build failed verification; rebuilding: %s", error)
            return False
        self.stage, self.outcomes = saved.stage, list(saved.outcomes)
        return True

    def apply_steps(self) -> None:
        """Apply every step whose verdict is a yes, and cast where the precision differs.

        Nothing of a step that fails is left in the model. Where this raises or is interrupted,
        nothing of any step is.

        Raises:
            StepError: see ``Builder.build``.
        """
        before, known, cast = self._snapshot(), {*self.shared.applied}, self.shared.cast
        try:
            self._apply_steps()
        except BaseException:
            for index in self.shared.applied.keys() - known:
                del self.shared.applied[index]
            self.shared.cast = self.shared.cast and cast
            if overwritten := self._undo(before):
                logger.error("%s", overwritten)
            raise

    def _apply_steps(self) -> None:
        plugins = plugin_host()
        dtype = self.plan.dtype
        uncast = dtype is not None and self.reference.floating_dtypes != {dtype}
        for index, planned in enumerate(self.plan.steps):
            if not planned.verdict:
                if planned.serves_generate:  # nothing was said when it was planned
                    self._finish(self.stage, planned.skipped, planned.step.optional)
                else:
                    self.outcomes.append(planned.skipped)
                continue
            obstacle = self._obstacle(planned)
            if not obstacle:
                skipped = replace(planned, verdict=obstacle).skipped
                self._finish(self.stage, skipped, planned.step.optional)
                continue
            if uncast and not planned.backend.casts:
                self._cast()
                uncast = False
            self.reference.released.restore()  # undo releases made by a failed step
            plugins.observe("cpuaccel_before_step", step=planned.step, model=self.stage.model)
            before = self._snapshot()
            applied = self._apply(index, planned)
            self._finish(*applied, planned.step.optional)
            if self.settings.inplace and self.outcomes[-1].status is not Status.APPLIED:
                self.shared.applied.pop(index, None)
                if overwritten := self._undo(before):
                    raise StepError(f"{planned.step.backend} failed, and {overwritten}")
            uncast = uncast and self.stage.dtype is None  # a step that failed has not cast
            plugins.observe("cpuaccel_after_step", step=planned.step, outcome=self.outcomes[-1])
        if uncast and not self.study.unstable:
            self._cast()

    def _snapshot(self) -> Snapshot | None:
        """Take a snapshot of what a step may change: a module, with inplace also its weights."""
        model, settings = self.stage.model, self.settings
        if not isinstance(model, torch.nn.Module):
            return None
        # With keep_original=False the memory of a weight must not be held.
        weights = settings.inplace and settings.keep_original
        return Snapshot(model, weights=weights, ignored=self.reference.weights.ignores)

    def _undo(self, snapshot: Snapshot | None) -> str:
        """Undo the changes since a snapshot; describe what can't be undone."""
        self.reference.released.restore()
        overwritten = snapshot.restore() if snapshot is not None else []
        if not overwritten:
            return ""
        others = f" and {len(overwritten) - 1} more" if len(overwritten) > 1 else ""
        return (
            f"weights of your model were overwritten in memory ({overwritten[0]}{others}): load "
            "them again, and leave the step out or pass inplace=False"
        )

    def _obstacle(self, planned: PlannedStep) -> Verdict:
        """Whether what the original depends on leaves a step possible."""
        name, study = planned.step.backend, self.study
        allowed = self.reference.hooks_verdict(planned.backend.gives)
        if not allowed:
            return allowed
        if study.unstable:
            return Verdict.no(
                f"the original's outputs for equal inputs differ: {study.unstable}",
                f"Leave {name} out, or pass what changes as an input",
            )
        if planned.backend.gives is Form.MODULE or not study.reads or self.settings.freeze_values:
            return Verdict.yes()
        return Verdict.no(
            f"forward's Python code reads values of its inputs at {study.reads[0]}, and {name} "
            "would freeze what it does with them",
            "Use tensor operations there, or pass freeze_values=True if these values never differ",
        )

    def caller(self, stage: Stage) -> Call:
        """Return a closure that calls a stage like the original."""
        return stage.caller(self.reference.binder, self.signature, self.study.probes.example.output)

    def _finish(self, stage: Stage, outcome: Outcome, optional: bool) -> None:
        """Verify a step that was applied, and record its outcome."""
        if outcome.status is Status.APPLIED:
            try:
                self.verified = self._verify(stage)
                self.stage = stage
            except OutputMismatchError as error:
                outcome = replace(outcome, status=Status.FAILED, reason=self._explained(error))
        self.outcomes.append(outcome)
        self.log(outcome, optional)

    def _explained(self, error: OutputMismatchError) -> str:
        written = ", ".join(map(repr, self.study.probes.example.written))
        return f"{error}; forward writes to its input {written}" if written else str(error)

    def _cast(self) -> None:
        dtype, begun = self.plan.dtype, time.perf_counter()
        assert dtype is not None
        assert isinstance(self.stage.model, torch.nn.Module)
        try:
            Structure.from_output(self.study.probes.example.output)  # outputs are cast back
        except BackendError as error:
            failed = Outcome(CAST_STEP, Status.FAILED, error.reason, error.remedy)
            self._finish(self.stage, failed, optional=False)
            return
        if self.shared.cast is None:
            model = shared_copy(self.stage.model, dtype)
            self.shared.cast = Stage(model, self.stage.form, dtype)
        outcome = Outcome(
            CAST_STEP,
            Status.APPLIED,
            evidence={"computes_in": dtype_name(dtype)},
            seconds=time.perf_counter() - begun,
        )
        self._finish(self.shared.cast, outcome, optional=False)

    def _apply(self, index: int, planned: PlannedStep) -> tuple[Stage, Outcome]:
        backend, name, stage = planned.backend, planned.step.backend, self.stage
        if backend.takes is not stage.form:
            reason = (
                f"{name} takes a {backend.takes}, but the step before it that gives one was not "
                "applied"
            )
            return stage, Outcome(name, Status.SKIPPED, reason)
        cast_dtype = self.plan.dtype if backend.casts else None
        before, applied, outcome = self.shared.applied.get(index, (None, None, None))
        if before == stage and applied is not None and outcome is not None:
            return stage.after(backend, applied, cast_dtype), outcome
        signature = self.signature
        if stage.dtype is not None:
            signature = signature.cast(stage.dtype)
        if signature is not self.plan.signature or stage.model is not self.reference.eager:
            verdict = ask(backend.accepts, stage.model, signature)
            if not verdict:
                return stage, Outcome(name, Status.SKIPPED, verdict.reason, verdict.remedy)
        cost = Cost()
        try:
            applied, restored = self._apply_unchanged(planned, signature)
        except BackendError as error:
            return stage, not_applied(name, error)
        outcome = cost.applied(name, applied.evidence, restored)
        if backend.gives is Form.MODULE:
            self.shared.applied[index] = (stage, applied, outcome)
        return stage.after(backend, applied, cast_dtype), outcome

    def _apply_unchanged(
        self, planned: PlannedStep, signature: Signature
    ) -> tuple[Applied, tuple[str, ...]]:
        """Apply a backend, and check that it left the model that it was given unchanged."""
        model, released = self.stage.model, self.reference.released
        assert isinstance(model, torch.nn.Module)
        release = (
            None if self.settings.keep_original else functools.partial(released.release, model)
        )
        # Backends call the model, which may write to its inputs: the probes need the example's.
        used = signature.copied()
        context = Context(self.plan.host, used, self.plan.dtype, self.settings.inplace, release)
        weights = self.reference.weights.for_copy(model)
        before = None if self.settings.inplace else self._snapshot()
        try:
            return apply_backend(planned.backend, model, context, self.stage.autocast)
        finally:
            if before is not None:
                if release is None and weights.changed():
                    self._refuse_changed(planned.step.backend)
                before.restore()

    def _refuse_changed(self, name: str) -> None:
        """Stop where a step changed what it was given: nothing that was built is right.

        Raises:
            StepError: always.
        """
        changed = self.reference.weights.changed()
        self.reference.reset()
        self.shared.applied.clear()
        self.shared.cast = None
        raise StepError(
            f"{name} changed the model that it was given, which is the reference, instead of a "
            "copy. "
            + (
                "The weights of your model have changed: load them again. "
                if changed
                else "Your model is unchanged. "
            )
            + "Leave the step out, and report this to the plugin's author"
        )

    def tolerance(self, stage: Stage) -> float:
        """Return the largest accepted relative difference of an output."""
        if self.settings.tolerance is not None:
            return self.settings.tolerance
        dtypes = {stage.dtype} if stage.dtype is not None else self.reference.floating_dtypes
        return max(default_tolerance(dtypes), stage.tolerance)

    def _verify(self, stage: Stage) -> Verified:
        """Compare outputs on all probes.

        Raises:
            OutputMismatchError: they differ from the original's.
        """
        call = self.caller(stage)
        return verify(
            lambda inputs: call(inputs).value,
            self.study.probes,
            self.tolerance(stage),
            self.reference.eager,
            calibrated=stage.value_ranges is not None,
        )
