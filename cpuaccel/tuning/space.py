"""The search space: all pipelines that the forms allow, ordered by expected speedup."""

from collections.abc import Iterator

import torch
from pydantic import ValidationError

from cpuaccel.errors import PipelineError
from cpuaccel.model.precision import dtype_of
from cpuaccel.model.signature import Signature
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.planning.plan import ask
from cpuaccel.planning.resolve import resolve
from cpuaccel.plugin.backend import Backend, Form
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.tuning.candidate import EAGER, Candidate, NotTried

LONGEST = 3
"""Maximum number of steps: longer pipelines have not been faster so far."""

EXPECTED_SPEEDUP = {Form.MODULE: 2.5, Form.COMPILED: 2.0, Form.SCRIPT: 1.3}
"""Of a backend that was not measured yet, by the form it gives. Only the order of trying depends on
it: backends that give modules come early, because others build on them."""


class Space:
    """The candidates that are left, and the results that decide their order."""

    def __init__(
        self,
        plugins: PluginHost,
        host: Host,
        model: torch.nn.Module,
        signature: Signature,
        precisions: tuple[str, ...],
        widest_tolerance: float,
        *,
        generates: bool = False,
    ) -> None:
        self.not_tried: list[NotTried] = []
        self._plugins = plugins
        self._widest_tolerance = widest_tolerance
        self._generates = generates
        self._own = {p.dtype for p in model.parameters() if p.is_floating_point()}
        self._backends = dict(self._available(host, model, signature))
        self._precisions = [p for p in precisions if self._supports(host, p)]
        self._speedups: dict[tuple[str, str], float] = {}  # by step and precision
        self._excluded: dict[tuple[str, ...], dict[str, str]] = {}  # reasons, by precision
        self._postponed: set[Candidate] = set()
        self._waiting = [
            Candidate(steps, precision)
            for precision in self._precisions
            for steps in self._compositions((), Form.MODULE)
            if steps or (not generates and dtype_of(precision) not in self._own)
        ]

    @property
    def waiting(self) -> list[Candidate]:
        """The candidates that are left, the most promising first."""
        return sorted(self._waiting, key=self._order)

    def take(self) -> Candidate | None:
        """Remove and return the most promising candidate; None if none is ready."""
        self._drop_excluded()
        ready = [c for c in self._waiting if not self._parts(c) & self._postponed]
        if not ready:
            return None
        best = min(ready, key=self._order)
        self._waiting.remove(best)
        return best

    def postpone(self, candidate: Candidate) -> None:
        """Hold back what contains a candidate until that has a result."""
        self._postponed.add(candidate)

    def _parts(self, candidate: Candidate) -> set[Candidate]:
        steps = candidate.steps
        parts = {(step,) for step in steps} | {steps[:end] for end in range(1, len(steps))}
        return {Candidate(part, candidate.precision) for part in parts if part != steps}

    def record(self, candidate: Candidate, speedup: float) -> None:
        """Record a result, on which the order of what contains the candidate depends."""
        self._postponed.discard(candidate)
        if len(candidate.steps) <= 1:
            step = candidate.name if candidate.steps else EAGER
            self._speedups[step, candidate.precision] = speedup

    def exclude(self, candidate: Candidate, reason: str, *, all_precisions: bool = False) -> None:
        """Leave out what contains a candidate that failed, by default in its precision only."""
        self._postponed.discard(candidate)
        # A cast that failed says nothing about another precision.
        everywhere = all_precisions and candidate.steps
        precisions = self._precisions if everywhere else [candidate.precision]
        self._excluded.setdefault(candidate.steps, {}).update(dict.fromkeys(precisions, reason))

    def expected_speedup(self, candidate: Candidate) -> float:
        """Return the product of the steps' speedups, measured or assumed."""
        speedup = self._speedups.get((EAGER, candidate.precision), 1.0)
        for step in candidate.steps:
            speedup *= self._factor(step, candidate.precision)
        return speedup

    def _factor(self, step: str, precision: str) -> float:
        """Return a step's speedup apart from the precision's, measured or assumed."""
        for measured_in in (precision, *self._precisions):
            speedup = self._speedups.get((step, measured_in))
            if speedup is not None:
                return speedup / self._speedups.get((EAGER, measured_in), 1.0)
        return EXPECTED_SPEEDUP[self._backends[step].gives]

    def _order(self, candidate: Candidate) -> tuple[bool, bool, float, int, str, str]:
        """Sort key: casts first, which are cheap and decide about others; parts before wholes."""
        return (
            bool(candidate.steps),
            not self._parts(candidate).isdisjoint(self._waiting),
            -self.expected_speedup(candidate),
            len(candidate.steps),
            candidate.name,
            candidate.precision,
        )

    def _drop_excluded(self) -> None:
        for candidate in list(self._waiting):
            for steps, reasons in self._excluded.items():
                reason = reasons.get(candidate.precision)
                if reason is not None and self._depends_on(candidate, steps):
                    self._waiting.remove(candidate)
                    part = ",".join(steps) or f"the cast to {candidate.precision}"
                    self.not_tried.append(NotTried(str(candidate), f"{part} failed: {reason}"))
                    break

    def _depends_on(self, candidate: Candidate, steps: tuple[str, ...]) -> bool:
        """Whether a candidate fails if these steps, or without steps the cast, fail."""
        if not steps:
            return not self._backends[candidate.steps[0]].casts
        begins = candidate.steps[: len(steps)] == steps
        return begins or (len(steps) == 1 and steps[0] in candidate.steps)

    def _available(
        self, host: Host, model: torch.nn.Module, signature: Signature
    ) -> Iterator[tuple[str, Backend[Options]]]:
        for name, backend_class in sorted(self._plugins.backends.items()):
            try:
                backend = backend_class(backend_class.Options())
            except ValidationError:
                needed = [
                    n for n, f in backend_class.Options.model_fields.items() if f.is_required()
                ]
                self.not_tried.append(
                    NotTried(name, f"option {needed[0]} is required: use the backend in a pipeline")
                )
                continue
            verdict = self._asked_for(backend)
            if verdict:
                verdict = self._supported(backend, host, model, signature)
            if verdict:
                yield name, backend
            else:
                self.not_tried.append(NotTried(name, f"{verdict}"))
        for broken in self._plugins.broken:
            self.not_tried.append(NotTried(broken.plugin, f"plugin not loaded: {broken.reason}"))

    def _supported(
        self,
        backend: Backend[Options],
        host: Host,
        model: torch.nn.Module,
        signature: Signature,
    ) -> Verdict:
        if self._generates:
            return ask(backend.check_generation, host)
        verdict = ask(backend.check, host)
        if verdict and backend.takes is Form.MODULE:
            return ask(backend.accepts, model, signature)
        return verdict

    def _asked_for(self, backend: Backend[Options]) -> Verdict:
        if self._generates and not backend.generates:
            return Verdict.no("it does not generate", "")
        if backend.tolerance <= self._widest_tolerance:
            return Verdict.yes()
        return Verdict.no(
            f"{backend.name} may be off by up to {100 * backend.tolerance:g}%, the default "
            f"tolerance is {100 * self._widest_tolerance:g}%",
            "To include it, pass a wider tolerance, or a metric and max_drop",
        )

    def _supports(self, host: Host, precision: str) -> bool:
        verdict = host.bf16()
        if precision != "bfloat16" or self._own == {torch.bfloat16} or verdict:
            return True
        self.not_tried.append(NotTried(precision, str(verdict)))
        return False

    def _compositions(self, steps: tuple[str, ...], form: Form) -> Iterator[tuple[str, ...]]:
        """Yield every sequence of backends in which each takes the form that the previous gives."""
        try:
            resolve(Pipeline(tuple(map(Step, steps))), self._plugins)
        except PipelineError:
            return
        yield steps
        if len(steps) < (1 if self._generates else LONGEST):  # one step alone serves generate
            for name, backend in self._backends.items():
                if backend.takes is form and name not in steps:
                    yield from self._compositions((*steps, name), backend.gives)
