"""What is known of a variant by its build, as JSON: of what it was made, and what it may serve."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from cpuaccel.artifact.mapping.saved_guards import SavedGuards
from cpuaccel.artifact.mapping.saved_output import SavedForm, SavedOutput, describe_output
from cpuaccel.building.domain import Domain, SizeRange
from cpuaccel.building.variant import Variant
from cpuaccel.checks.axis_groups import AxisGroups
from cpuaccel.model.precision import dtype_name
from cpuaccel.model.signature import Signature
from cpuaccel.report import Fidelity, Outcome
from cpuaccel.timing import Ratio

Precision = Literal["float32", "bfloat16"] | None

Limit = Annotated[float, Field(ge=0)]


class VariantRecord(BaseModel):
    """A variant without its model. See ``Variant``, ``Stage`` and ``Domain`` for the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: str
    dtype: Precision
    step_tolerance: Limit
    output: SavedOutput
    outcomes: tuple[Outcome, ...]
    fidelity: Fidelity
    speed: Ratio | None
    ranges: dict[str, SizeRange] | None
    frozen: frozenset[str]
    guards: SavedGuards | None
    values: dict[str, tuple[float, float]] | None
    tolerance: Limit
    copied: frozenset[str]
    writes: bool
    finite: bool
    form: SavedForm | None

    @classmethod
    def from_variant(cls, variant: Variant, output: object) -> Self:
        """Describe a variant.

        Args:
            variant: it has been verified.
            output: the original's for its example.

        Raises:
            UnsupportedOutputError: see ``describe_output``.
            BackendError: see ``describe_output``.
            ValueError: something in it has no form in JSON, such as an infinity.
        """
        stage, report, domain, form = (
            variant.stage,
            variant.report,
            variant.domain,
            variant.output_form,
        )
        assert report.fidelity is not None
        record = cls(
            step=stage.step,
            dtype=None if stage.dtype is None else dtype_name(stage.dtype),
            step_tolerance=stage.tolerance,
            output=describe_output(output),
            outcomes=report.outcomes,
            fidelity=report.fidelity,
            speed=report.speed,
            ranges=None if domain.ranges is None else dict(domain.ranges),
            frozen=domain.frozen,
            guards=None if domain.guards is None else SavedGuards.from_guards(domain.guards),
            values=None if stage.value_ranges is None else dict(stage.value_ranges),
            tolerance=variant.tolerance,
            copied=variant.copied,
            writes=variant.writes,
            finite=variant.finite,
            form=None if form is None else SavedForm.from_form(form),
        )
        return cls.model_validate_json(record.model_dump_json())

    def domain(self, signature: Signature) -> Domain:
        """The calls that the variant may serve."""
        return Domain(
            signature,
            AxisGroups.from_signature(signature),
            self.ranges,
            self.frozen,
            None if self.guards is None else self.guards.to_guards(),
            self.values or {},
        )
