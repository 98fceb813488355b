"""Applying a plan to a model for one way of calling it, and checking every step's answers."""

import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import replace

import psutil
import torch

from cpuaccel.building.apply import ask_to_apply
from cpuaccel.building.stage import Answer, Stage, calling
from cpuaccel.building.variant import Ready, Variant
from cpuaccel.checks.output_form import Expectation
from cpuaccel.checks.probes import Probe, Probes, has_nonfinite, make_probes
from cpuaccel.checks.verify import verify
from cpuaccel.errors import BackendError, StepError
from cpuaccel.model.copying import shared_copy
from cpuaccel.model.output import Structure, tensors
from cpuaccel.model.precision import default_tolerance, dtype_name
from cpuaccel.model.released_weights import ReleasedWeights
from cpuaccel.model.signature import Binder, Inputs, Signature
from cpuaccel.model.torch_modes import outside_inference_mode
from cpuaccel.model.weights import WatchedWeights
from cpuaccel.planning.plan import Plan, PlannedStep, ask
from cpuaccel.plugin.backend import Applied, Context, Form
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.report import Fidelity, Outcome, Status, VariantReport
from cpuaccel.timing import Ratio, interleave

logger = logging.getLogger("cpuaccel")

CAST_STEP = "dtype"
"""What the cast to the pipeline's precision is called among the outcomes."""

FIRST_LOOK_SECONDS = 1.0
FIRST_LOOK_PAIRS = 7


class Builder:
    """Builds variants of one model by one plan.

    Attributes:
        plan: what to do.
        original: the caller's model.
        eager: the original in eval mode, sharing its weights: the reference and the fallback.
        tolerance: largest relative difference that is accepted.
        keep_original: False where backends may take the original's weights over.
        released: the original's weights that only a variant holds.
        weights: tells whether they are still those that were built for.
        ready: earlier builds, by the signature of the call.
    """

    def __init__(
        self,
        plan: Plan,
        original: torch.nn.Module,
        *,
        plugins: PluginHost,
        tolerance: float | None,
        strict: bool,
        inplace: bool,
        keep_original: bool = True,
        look: bool = True,
    ) -> None:
        """Prepare it; nothing is built yet.

        Args:
            plan: what to do.
            original: the caller's model.
            plugins: are told of every step.
            tolerance: as ``optimize`` takes it.
            strict: as ``optimize`` takes it.
            inplace: as ``optimize`` takes it.
            keep_original: as ``optimize`` takes it.
            look: whether to time each variant a little; False where it is measured anyway.
        """
        self.plan = plan
        self.original = original
        self.binder = Binder(original)
        self.tolerance = tolerance
        self.strict = strict
        self.inplace = inplace
        self.keep_original = keep_original
        self.weights = WatchedWeights(original)
        self.released = ReleasedWeights(original, self.weights.moved)
        self._plugins = plugins
        self._look = look
        self._told: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Forget what was built: the original's weights are no longer what they were."""
        self.released.restore()
        self.eager = self.original.eval() if self.inplace else shared_copy(self.original)
        # Steps from module to module are shared by all variants: their weights exist once.
        self._shared: dict[int, tuple[Stage, Applied, Outcome]] = {}
        self._cast: Stage | None = None
        self.ready: dict[str, Ready] = {}
        self.weights.note()

    def run_original(self, inputs: Mapping[str, object]) -> object:
        """Call the original, in eval mode."""
        self.released.restore_original()
        return self.binder.call(self.eager, inputs)

    def build(self, inputs: Inputs) -> Variant:
        """Apply the plan for calls like this one.

        Raises:
            StepError: with ``strict``, a step that was not applied, and why.
        """
        begun = time.perf_counter()
        with calling(None), outside_inference_mode():
            inputs = _ordinary(inputs)
            signature = Signature(self.binder, inputs)
            logger.info("building %s for %s", self.plan.pipeline, signature)
            self.weights.note()
            probes = make_probes(self.run_original, signature)
            self.weights.leave_to_model()
            stage, outcomes, fidelity = self._reuse(signature, probes) or self._run(
                signature, probes
            )
            if any(o.status is Status.APPLIED for o in outcomes):
                answer = stage.answering(self.binder, signature, probes.example.output)
                looked = self._look and self.released.complete
                speed = self._first_look(answer, inputs) if looked else None
            else:
                answer, speed, fidelity = self.run_original, None, None
        seconds = time.perf_counter() - begun
        report = VariantReport(str(signature), tuple(outcomes), fidelity, speed, seconds)
        watched = not has_nonfinite(tensors(probes.example.output))
        expected = Expectation.of(probes, signature.axes)
        if self.inplace or self.released:
            self.weights.note()  # the steps have changed or moved them
        return Variant(answer, stage.model, stage.form, report, watched, expected, signature, stage)

    def _reuse(
        self, signature: Signature, probes: Probes
    ) -> tuple[Stage, list[Outcome], Fidelity] | None:
        ready = self.ready.get(str(signature))
        if ready is None:
            return None
        found = self._verify(ready.stage, signature, probes)
        if isinstance(found, Fidelity):
            return ready.stage, list(ready.outcomes), found
        logger.warning("what was built before is not used, it is built anew: %s", found)
        return None

    def _run(
        self, signature: Signature, probes: Probes
    ) -> tuple[Stage, list[Outcome], Fidelity | None]:
        stage, fidelity = Stage(self.eager, Form.MODULE), None
        outcomes: list[Outcome] = []
        uncast = self._wants_cast()

        def take(step: str, optional: bool, next_stage: Stage, outcome: Outcome) -> None:
            nonlocal stage, fidelity
            if outcome.status is Status.APPLIED:
                found = self._verify(next_stage, signature, probes)
                if isinstance(found, Fidelity):
                    stage, fidelity = next_stage, found
                else:
                    outcome = replace(outcome, status=Status.FAILED, reason=found)
            outcomes.append(outcome)
            self._tell(step, optional, outcome)

        def cast() -> None:
            nonlocal uncast
            uncast = False
            take(CAST_STEP, False, *self._cast_stage(stage, probes.example))

        for index, planned in enumerate(self.plan.steps):
            if not planned.verdict:
                outcomes.append(planned.skipped)
                continue
            if uncast and not planned.backend.casts:
                cast()
            self.released.restore()  # what a step that failed has let go of
            self._plugins.before_step(planned.step, stage.model)
            next_stage, outcome = self._apply(index, planned, stage, signature)
            uncast = uncast and next_stage.dtype is None
            take(planned.step.backend, planned.step.optional, next_stage, outcome)
            self._plugins.after_step(planned.step, outcomes[-1])
        if uncast:
            cast()
        return stage, outcomes, fidelity

    def _wants_cast(self) -> bool:
        dtype = self.plan.dtype_in_force
        return dtype is not None and self._own_dtypes != {dtype}

    @property
    def _own_dtypes(self) -> set[torch.dtype]:
        return {p.dtype for p in self.eager.parameters() if p.is_floating_point()}

    def _cast_stage(self, stage: Stage, example: Probe) -> tuple[Stage, Outcome]:
        dtype = self.plan.dtype_in_force
        assert dtype is not None
        assert isinstance(stage.model, torch.nn.Module)
        begun = time.perf_counter()
        try:
            Structure.from_output(example.output)  # answers are cast back to the original's dtype
        except BackendError as error:
            return stage, Outcome(CAST_STEP, Status.FAILED, error.reason, error.remedy)
        if self._cast is None:
            self._cast = Stage(shared_copy(stage.model, dtype), stage.form, dtype)
        evidence = {"computes_in": dtype_name(dtype)}
        seconds = time.perf_counter() - begun
        return self._cast, Outcome(CAST_STEP, Status.APPLIED, evidence=evidence, seconds=seconds)

    def _apply(
        self, index: int, planned: PlannedStep, stage: Stage, signature: Signature
    ) -> tuple[Stage, Outcome]:
        backend, name = planned.backend, planned.step.backend
        if backend.takes is not stage.form:
            reason = f"{name} takes a {backend.takes}, but the step before it that would have "
            return stage, Outcome(name, Status.SKIPPED, reason + "given one was not applied")
        shared = self._shared.get(index)
        if shared is not None and shared[0] == stage:
            return stage.after(backend, shared[1], self._casting(planned)), shared[2]
        if stage.dtype is not None:
            signature = signature.cast(stage.dtype)
        model = stage.model
        verdict = ask(backend.accepts, model, signature)
        if not verdict:
            return stage, Outcome(name, Status.SKIPPED, verdict.reason, verdict.remedy)
        assert isinstance(model, torch.nn.Module)
        release = None if self.keep_original else functools.partial(self.released.release, model)
        context = Context(
            self.plan.host, signature, self.plan.dtype_in_force, self.inplace, release
        )
        given = self.weights.of_copy(model)
        memory, begun = psutil.Process().memory_info().rss, time.perf_counter()
        restored: list[str] = []
        applied = ask_to_apply(backend, model, context, stage.autocast, restored)
        if not self.inplace and release is None and given.changed():
            self._refuse_changed(name)
        if isinstance(applied, Outcome):
            return stage, applied
        outcome = Outcome(
            name,
            Status.APPLIED,
            evidence=applied.evidence,
            seconds=time.perf_counter() - begun,
            bytes=psutil.Process().memory_info().rss - memory,
            restored=tuple(restored),
        )
        if backend.gives is Form.MODULE:
            self._shared[index] = (stage, applied, outcome)
        return stage.after(backend, applied, self._casting(planned)), outcome

    def _refuse_changed(self, name: str) -> None:
        """Stop where a step has changed what it was given: nothing that was built is right.

        Raises:
            StepError: always.
        """
        harmed = self.weights.changed()
        self.reset()
        raise StepError(
            f"{name} changed the model that it was given, instead of a copy of it, and so the "
            "reference that answers are compared with. "
            + (
                "Your model's own weights are no longer what they were: load them again. "
                if harmed
                else "Your own model is as it was. "
            )
            + "Leave the step out, and report this to the plugin's author"
        )

    def _casting(self, planned: PlannedStep) -> torch.dtype | None:
        return self.plan.dtype_in_force if planned.backend.casts else None

    def _verify(self, stage: Stage, signature: Signature, probes: Probes) -> Fidelity | str:
        """Compare the answers on all probes. A sentence, where they are not the original's."""
        tolerance = self.tolerance
        if tolerance is None:
            dtypes = {stage.dtype} if stage.dtype is not None else self._own_dtypes
            tolerance = max(default_tolerance(dtypes), stage.tolerance)
        answer = stage.answering(self.binder, signature, probes.example.output)
        return verify(answer, probes, tolerance, self.eager)

    def _first_look(self, answer: Answer, inputs: Inputs) -> Ratio:
        times = interleave(
            {"original": lambda: self.run_original(inputs), "optimized": lambda: answer(inputs)},
            rounds=FIRST_LOOK_PAIRS,
            seconds=FIRST_LOOK_SECONDS,
            warmup=0,  # both have answered the probes
        )
        return Ratio.from_times(times["original"], times["optimized"])

    def _tell(self, step: str, optional: bool, outcome: Outcome) -> None:
        if outcome.status is Status.APPLIED or optional:
            return
        if self.strict:
            raise StepError(f"strict=True was asked for, but {outcome}")
        if str(outcome) not in self._told:  # once, however many variants meet it
            self._told.add(str(outcome))
            logger.warning("%s", outcome)


def _ordinary(inputs: Inputs) -> Inputs:
    """The inputs without tensors of inference mode, which compilers and in-place code refuse."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value
        for name, value in inputs.items()
    }
