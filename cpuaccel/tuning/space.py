"""What could be tried: every backend on offer, composed by forms, in order of promise."""

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
"""Steps of a pipeline; what more of them have brought so far is nothing."""

PROMISE = {Form.MODULE: 2.5, Form.COMPILED: 2.0, Form.SCRIPT: 1.3}
"""What a backend is expected to bring, by the form it gives, until it was measured. Only the order
of trying depends on it: what gives a module is built soon, and tells of all that is put upon it."""


class Space:
    """All candidates, and what is known of their parts.

    Attributes:
        not_tried: the backends and precisions left out beforehand, and why.
    """

    def __init__(
        self,
        plugins: PluginHost,
        host: Host,
        model: torch.nn.Module,
        signature: Signature,
        precisions: tuple[str, ...],
        coarseness: float,
    ) -> None:
        """Ask every backend about the host, and about the model where it comes first.

        Args:
            plugins: what is on offer.
            host: this machine.
            model: the original.
            signature: how it is called.
            precisions: what may be computed in.
            coarseness: the widest tolerance that a backend may declare.
        """
        self.not_tried: list[NotTried] = []
        self._plugins = plugins
        self._coarseness = coarseness
        self._own = {p.dtype for p in model.parameters() if p.is_floating_point()}
        self._backends = dict(self._available(host, model, signature))
        self._precisions = [p for p in precisions if self._has(host, p)]
        self._brought: dict[tuple[str, str], float] = {}  # a step's speedup, by precision
        self._refused: dict[tuple[str, ...], dict[str, str]] = {}  # reasons, by precision
        self._unfinished: set[Candidate] = set()
        self._waiting = [
            Candidate(steps, precision)
            for precision in self._precisions
            for steps in self._compositions((), Form.MODULE)
            if steps or dtype_of(precision) not in self._own
        ]

    @property
    def waiting(self) -> list[Candidate]:
        """What was not taken yet, the most promising first."""
        return sorted(self._waiting, key=self._order)

    def take(self) -> Candidate | None:
        """The most promising candidate that is left; None where there is none for now."""
        self._drop_refused()
        ready = [c for c in self._waiting if not self._parts(c) & self._unfinished]
        if not ready:
            return None
        best = min(ready, key=self._order)
        self._waiting.remove(best)
        return best

    def put_off(self, candidate: Candidate) -> None:
        """Tell that a candidate will be gone on with later; until then it is no part of another."""
        self._unfinished.add(candidate)

    def _parts(self, candidate: Candidate) -> set[Candidate]:
        steps = candidate.steps
        parts = {(step,) for step in steps} | {steps[:end] for end in range(1, len(steps))}
        return {Candidate(part, candidate.precision) for part in parts if part != steps}

    def learn(self, candidate: Candidate, speedup: float) -> None:
        """Tell what a candidate brought, so that what it is a part of is judged by it."""
        self._unfinished.discard(candidate)
        if len(candidate.steps) <= 1:
            step = candidate.name if candidate.steps else EAGER
            self._brought[step, candidate.precision] = speedup

    def refuse(self, candidate: Candidate, reason: str, *, anywhere: bool = False) -> None:
        """Tell that a candidate can't be had: what it is a part of is not tried then.

        Args:
            candidate: what was tried.
            reason: what became of it.
            anywhere: that it can't be had in another precision either.
        """
        self._unfinished.discard(candidate)
        # A cast that can't be had says nothing of another.
        everywhere = anywhere and candidate.steps
        precisions = self._precisions if everywhere else [candidate.precision]
        self._refused.setdefault(candidate.steps, {}).update(dict.fromkeys(precisions, reason))

    def promise(self, candidate: Candidate) -> float:
        """The speedup that is expected."""
        promise = self._brought.get((EAGER, candidate.precision), 1.0)
        for step in candidate.steps:
            promise *= self._factor(step, candidate.precision)
        return promise

    def _factor(self, step: str, precision: str) -> float:
        """What a step brings besides the precision: measured in this or another, or guessed."""
        for measured_in in (precision, *self._precisions):
            speedup = self._brought.get((step, measured_in))
            if speedup is not None:
                return speedup / self._brought.get((EAGER, measured_in), 1.0)
        return PROMISE[self._backends[step].gives]

    def _order(self, candidate: Candidate) -> tuple[bool, bool, float, int, str, str]:
        """Casts first, for they are cheap and tell of all others; no whole before its parts."""
        return (
            bool(candidate.steps),
            not self._parts(candidate).isdisjoint(self._waiting),
            -self.promise(candidate),
            len(candidate.steps),
            candidate.name,
            candidate.precision,
        )

    def _drop_refused(self) -> None:
        for candidate in list(self._waiting):
            for steps, reasons in self._refused.items():
                reason = reasons.get(candidate.precision)
                if reason is not None and self._rests_on(candidate, steps):
                    self._waiting.remove(candidate)
                    part = ",".join(steps) or f"the cast to {candidate.precision}"
                    self.not_tried.append(
                        NotTried(str(candidate), f"{part} can't be had: {reason}")
                    )
                    break

    def _rests_on(self, candidate: Candidate, steps: tuple[str, ...]) -> bool:
        """Whether a candidate can't be had where these steps, or a mere cast, can't."""
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
                    NotTried(name, f"its option {needed[0]} has no default: name it in a pipeline")
                )
                continue
            verdict = self._fine_enough(backend)
            if verdict:
                verdict = ask(backend.check, host)
            if verdict and backend.takes is Form.MODULE:
                verdict = ask(backend.accepts, model, signature)
            if verdict:
                yield name, backend
            else:
                self.not_tried.append(NotTried(name, f"{verdict}"))
        for broken in self._plugins.broken:
            self.not_tried.append(NotTried(broken.plugin, f"set aside: {broken.reason}"))

    def _fine_enough(self, backend: Backend[Options]) -> Verdict:
        if backend.tolerance <= self._coarseness:
            return Verdict.yes()
        return Verdict.no(
            f"it computes coarsely by design (up to {backend.tolerance:g} off), where "
            f"{self._coarseness:g} is accepted",
            "Pass a wider tolerance, or a metric and max_drop, to let it take part",
        )

    def _has(self, host: Host, precision: str) -> bool:
        verdict = host.bf16()
        if precision != "bfloat16" or self._own == {torch.bfloat16} or verdict:
            return True
        self.not_tried.append(NotTried(precision, str(verdict)))
        return False

    def _compositions(self, steps: tuple[str, ...], form: Form) -> Iterator[tuple[str, ...]]:
        """Every order of backends in which each takes what the one before it gives."""
        if self._refuses(steps):
            return
        yield steps
        if len(steps) < LONGEST:
            for name, backend in self._backends.items():
                if backend.takes is form and name not in steps:
                    yield from self._compositions((*steps, name), backend.gives)

    def _refuses(self, steps: tuple[str, ...]) -> bool:
        try:
            resolve(Pipeline(tuple(map(Step, steps))), self._plugins)
        except PipelineError:
            return True
        return False
