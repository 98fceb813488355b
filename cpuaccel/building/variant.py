"""What is built for one way of calling a model."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cpuaccel.building.health import Health
from cpuaccel.building.stage import Answer, Stage
from cpuaccel.checks.output_form import Expectation
from cpuaccel.model.signature import Signature
from cpuaccel.plugin.backend import Form
from cpuaccel.report import Outcome, Status, VariantReport


@dataclass(eq=False)
class Variant:
    """A model built for one way of calling it.

    Attributes:
        answer: calls it.
        model: the last step's result, the original where no step was applied.
        form: the form that ``model`` has.
        report: what was done.
        watched: whether NaN and infinity in its answers are a fault (the original's had none).
        expected: what its answers have to look like; None if nothing is known.
        health: its faults.
        signature: the call that it was built for.
        stage: ``model`` with the precision that it has to be called in.
    """

    answer: Answer
    model: Callable[..., object]
    form: Form
    report: VariantReport
    watched: bool
    expected: Expectation | None
    signature: Signature
    stage: Stage
    health: Health = field(default_factory=Health)

    @property
    def applied(self) -> bool:
        """Whether it is anything but the original."""
        return any(o.status is Status.APPLIED for o in self.report.outcomes)

    @property
    def frozen(self) -> bool:
        """Whether it answers only calls of exactly the example's shapes."""
        return self.report.fidelity is not None and bool(self.report.fidelity.frozen)


@dataclass(frozen=True)
class Ready:
    """What an earlier build came to. It is held against the original like what a step gives.

    Attributes:
        stage: its last.
        outcomes: one for each step.
    """

    stage: Stage
    outcomes: tuple[Outcome, ...]
