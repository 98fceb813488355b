"""A pipeline held against a host and a signature, before any work."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ParamSpec

import torch

from cpuaccel.errors import StepError
from cpuaccel.model.precision import dtype_name
from cpuaccel.model.signature import Signature
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.planning.resolve import ResolvedStep
from cpuaccel.plugin.backend import Backend
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import Outcome, Status

Question = ParamSpec("Question")


@dataclass(frozen=True)
class PlannedStep:
    """A step and what can be said of it beforehand."""

    step: Step
    backend: Backend[Options]
    verdict: Verdict

    @property
    def skipped(self) -> Outcome:
        """The outcome of a step whose verdict is a no."""
        return Outcome(self.step.backend, Status.SKIPPED, self.verdict.reason, self.verdict.remedy)


@dataclass(frozen=True)
class Plan:
    """What ``optimize`` would do.

    Attributes:
        pipeline: what was asked for.
        steps: each step with its verdict.
        dtype: the precision asked for, None for the model's own.
        precision: the verdict on that precision.
        host: what it was planned for.
    """

    pipeline: Pipeline
    steps: tuple[PlannedStep, ...]
    dtype: torch.dtype | None
    precision: Verdict
    host: Host

    @property
    def dtype_in_force(self) -> torch.dtype | None:
        """The precision that will be computed in, None for the model's own."""
        return self.dtype if self.precision else None

    def require(self) -> None:
        """Insist on every step that is not optional, and on the precision.

        Raises:
            StepError: names all that can't be had.
        """
        missing = [
            f"{p.step.backend}: {p.verdict}"
            for p in self.steps
            if not p.verdict and not p.step.optional
        ]
        if not self.precision:
            missing.append(f"dtype {self._dtype_name}: {self.precision}")
        if missing:
            lines = "\n".join(f"  - {m}" for m in missing)
            raise StepError(
                f"pipeline {self.pipeline} was asked for with strict=True, but not all of it can "
                f"be had:\n{lines}"
            )

    @property
    def _dtype_name(self) -> str:
        return "the model's own" if self.dtype is None else dtype_name(self.dtype)

    def __str__(self) -> str:
        lines = [f"pipeline  {self.pipeline}, dtype {self._dtype_name}"]
        if not self.precision:
            lines.append(f"dtype     no. {self.precision}.")
        for planned in self.steps:
            arrow = f"{planned.backend.takes} -> {planned.backend.gives}"
            verdict = "yes" if planned.verdict else f"no. {planned.verdict}."
            lines.append(f"step      {planned.step.backend} ({arrow}): {verdict}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The same as data that JSON can hold."""
        return {
            "pipeline": str(self.pipeline),
            "dtype": self._dtype_name,
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


def make_plan(
    pipeline: Pipeline,
    resolved: list[ResolvedStep],
    host: Host,
    model: Callable[..., object],
    signature: Signature | None,
) -> Plan:
    """Ask every backend about the host, and where inputs are known about the model.

    Args:
        pipeline: what was asked for.
        resolved: its steps, as ``resolve`` returned them.
        host: this machine, or another one that is wondered about.
        model: the original.
        signature: how it is called, None where no inputs are known yet.
    """
    planned = []
    for step in resolved:
        verdict = ask(step.backend.check, host)
        if verdict and signature is not None:
            verdict = ask(step.backend.accepts, model, signature)
        planned.append(PlannedStep(step.step, step.backend, verdict))
    precision = host.bf16() if pipeline.dtype is torch.bfloat16 else Verdict.yes()
    return Plan(pipeline, tuple(planned), pipeline.dtype, precision, host)


def ask(
    question: Callable[Question, Verdict], *args: Question.args, **kwargs: Question.kwargs
) -> Verdict:
    """Ask a backend something that must not raise; if it does, that is a no."""
    try:
        answer = question(*args, **kwargs)
        if isinstance(answer, Verdict):
            return answer
        return Verdict.no(
            f"its plugin answered with a {type(answer).__name__} in place of a Verdict",
            "Report this to the plugin's author",
        )
    except (Exception, SystemExit) as error:
        return Verdict.no(
            f"its plugin could not tell, and raised {type(error).__name__}: {error}",
            "Report this to the plugin's author",
        )
