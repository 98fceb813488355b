"""A pipeline checked against a host and a signature before any work: ``cpuaccel.explain``."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ParamSpec

import torch

from cpuaccel.checks.hooks import callers_hooks, capturing_verdict
from cpuaccel.errors import CpuaccelError, PipelineError, StepError
from cpuaccel.model.precision import dtype_name, dtype_of
from cpuaccel.model.signature import ExampleInputs, Signature, unsupported_input
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.planning.default import default_pipeline
from cpuaccel.planning.precision import bf16_verdict
from cpuaccel.planning.resolve import resolve_here
from cpuaccel.planning.toml import read_pipeline
from cpuaccel.plugin.backend import Backend, Form
from cpuaccel.plugin.host import Host, host
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import Outcome, Status

logger = logging.getLogger("cpuaccel")

Question = ParamSpec("Question")

OWN_DTYPE = "the model's own"

INPUTS_REMEDY = "Pass dense tensors and plain Python values, each as an input of its own"


@dataclass(frozen=True)
class PlannedStep:
    """A step, its backend, and whether this host and this model support it.

    Attributes:
        serves_generate: whether it serves ``generate`` here, even if it can't serve calls, and no
            inputs for calls are known.
    """

    step: Step
    backend: Backend[Options]
    verdict: Verdict
    serves_generate: bool = False

    @property
    def skipped(self) -> Outcome:
        """The outcome of a step whose verdict is a no."""
        return Outcome(self.step.backend, Status.SKIPPED, self.verdict.reason, self.verdict.remedy)


@dataclass(frozen=True)
class Plan:
    """What ``optimize`` would do.

    Attributes:
        pipeline: the pipeline.
        steps: its steps, each with a verdict.
        precision: whether this host supports the precision of the pipeline.
        host: the host that was asked about.
        signature: the example inputs, bound to the model's parameters; None if there are none.
    """

    pipeline: Pipeline
    steps: tuple[PlannedStep, ...]
    precision: Verdict
    host: Host
    signature: Signature | None = field(default=None, repr=False)

    @property
    def captures(self) -> bool:
        """Whether a step replaces the model's Python code by a graph."""
        return any(p.verdict and p.backend.gives is not Form.MODULE for p in self.steps)

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision that will be used, None for the model's own."""
        return self.pipeline.dtype if self.precision else None

    @property
    def dtype_name(self) -> str:
        """The precision that will be used, as text."""
        return _dtype_name(self.dtype)

    def warn_or_raise(self, *, strict: bool) -> None:
        """Log what this host or model does not support, except optional steps.

        Raises:
            StepError: with ``strict``, instead of logging.
        """
        missing = [p for p in self.steps if not (p.verdict or p.step.optional or p.serves_generate)]
        asked = _dtype_name(self.pipeline.dtype)
        if strict and (missing or not self.precision):
            lines = [f"{planned.step.backend}: {planned.verdict}" for planned in missing]
            lines += [] if self.precision else [f"dtype {asked}: {self.precision}"]
            listed = "".join(f"\n  - {line}" for line in lines)
            raise StepError(f"strict=True, but pipeline {self.pipeline} is not supported:{listed}")
        for planned in missing:
            logger.warning("%s", planned.skipped)
        if not self.precision:
            logger.warning("%s is not used: %s", asked, self.precision)

    def __str__(self) -> str:
        lines = [f"pipeline  {self.pipeline}, dtype {_dtype_name(self.pipeline.dtype)}"]
        if not self.precision:
            lines.append(f"dtype     no. {self.precision}.")
        for planned in self.steps:
            arrow = f"{planned.backend.takes} -> {planned.backend.gives}"
            verdict = "yes" if planned.verdict else f"no. {planned.verdict}."
            lines.append(f"step      {planned.step.backend} ({arrow}): {verdict}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return the plan as JSON-serializable data."""
        return {
            "pipeline": str(self.pipeline),
            "dtype": _dtype_name(self.pipeline.dtype),
            "precision": asdict(self.precision),
            "steps": [
                {
                    "backend": p.step.backend,
                    "optional": p.step.optional,
                    "takes": p.backend.takes,
                    "gives": p.backend.gives,
                    **asdict(p.verdict),
                }
                for p in self.steps
            ],
        }


def explain(
    model: torch.nn.Module,
    backends: Iterable[str | Step] | None = None,
    *,
    pipeline: str | Path | Pipeline | None = None,
    example_inputs: ExampleInputs | None = None,
    dtype: torch.dtype | str | None = None,
) -> Plan:
    """Return what ``optimize`` would do with the same arguments, without doing it.

    Without ``example_inputs`` the verdicts are about this host only.

    Raises:
        PipelineError: the pipeline is invalid; lists every mistake.
        SignatureError: ``forward`` does not accept the example inputs.
    """
    plan = plan_for(model, backends, pipeline, example_inputs, dtype)
    if plan.signature is not None and (reason := unsupported_input(plan.signature.inputs)):
        unsupported = Verdict.no(reason, INPUTS_REMEDY)
        refused = (replace(p, verdict=unsupported) if p.verdict else p for p in plan.steps)
        return replace(plan, steps=tuple(refused))
    hooks = capturing_verdict(callers_hooks(model))
    steps = [
        planned
        if hooks or not planned.verdict or planned.backend.gives is Form.MODULE
        else replace(planned, verdict=hooks)
        for planned in plan.steps
    ]
    return replace(plan, steps=tuple(steps))


def plan_for(
    model: torch.nn.Module,
    backends: Iterable[str | Step] | None,
    pipeline: str | Path | Pipeline | None,
    example_inputs: ExampleInputs | None,
    dtype: torch.dtype | str | None,
) -> Plan:
    """Make the plan that ``explain`` describes, without verdicts on hooks, which may change."""
    check_model(model)
    return make_plan(model, _pipeline(backends, pipeline, dtype_of(dtype)), example_inputs)


def check_model(model: object) -> None:
    """Raise ``CpuaccelError`` unless this is a module."""
    if not isinstance(model, torch.nn.Module):
        raise CpuaccelError(f"model must be a torch.nn.Module, got a {type(model).__name__}")


def make_plan(
    model: torch.nn.Module,
    pipeline: Pipeline,
    example_inputs: ExampleInputs | None = None,
    on: Host | None = None,
) -> Plan:
    """Ask each backend about the host, and with example inputs about the model.

    Args:
        model: the original.
        pipeline: the steps.
        example_inputs: see ``optimize``.
        on: the host to ask about, this one by default.

    Raises:
        PipelineError: the pipeline is invalid; lists every mistake.
        SignatureError: ``forward`` does not accept the example inputs.
    """
    (resolved,) = resolve_here(pipeline)
    if isinstance(model, torch.jit.ScriptModule):
        raise PipelineError(
            f"pipeline {pipeline} on a ScriptModule",
            [
                f"{step.backend.name} takes a {step.backend.takes}, but the model is a script "
                "already: pass the eager module that the script was made from"
                for step in resolved[:1]
            ],
        )
    asked = host() if on is None else on
    signature = None if example_inputs is None else Signature.from_inputs(model, example_inputs)
    planned = []
    for step in resolved:
        verdict = ask(step.backend.check, asked)
        if verdict and signature is not None and not unsupported_input(signature.inputs):
            verdict = ask(step.backend.accepts, model, signature)
        serves_generate = (
            signature is None
            and step.backend.generates
            and hasattr(model, "generate")
            and bool(ask(step.backend.check_generation, asked))
        )
        planned.append(PlannedStep(step.step, step.backend, verdict, serves_generate))
    precision = bf16_verdict(model, asked) if pipeline.dtype is torch.bfloat16 else Verdict.yes()
    return Plan(pipeline, tuple(planned), precision, asked, signature)


def ask(
    question: Callable[Question, Verdict], *args: Question.args, **kwargs: Question.kwargs
) -> Verdict:
    """Ask a backend a question; an exception counts as a no."""
    remedy = "Report this to the plugin's author"
    try:
        answer = question(*args, **kwargs)
    except (Exception, SystemExit) as error:
        return Verdict.no(f"its plugin raised {type(error).__name__}: {error}", remedy)
    if isinstance(answer, Verdict):
        return answer
    return Verdict.no(f"its plugin must return a Verdict, got a {type(answer).__name__}", remedy)


def _pipeline(
    backends: Iterable[str | Step] | None,
    pipeline: str | Path | Pipeline | None,
    dtype: torch.dtype | None,
) -> Pipeline:
    if backends is not None and pipeline is not None:
        raise PipelineError("optimize()", ["pass one of backends and pipeline, got both"])
    if backends is not None:
        return Pipeline.from_steps(backends, dtype)
    if pipeline is None:
        return replace(default_pipeline(host()), dtype=dtype)
    read = pipeline if isinstance(pipeline, Pipeline) else read_pipeline(pipeline)
    if dtype is None:
        return read
    return replace(read, dtype=dtype)


def _dtype_name(dtype: torch.dtype | None) -> str:
    return OWN_DTYPE if dtype is None else dtype_name(dtype)
