"""How a pipeline is built, whatever its steps are."""

from dataclasses import dataclass

from cpuaccel.errors import CpuaccelError


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How variants are built: arguments of ``cpuaccel.optimize``, and ``measure_speed``.

    Attributes:
        strict: raise where a step is not applied or a call needs the original model.
        tolerance: largest accepted relative difference of an output; None for the default of the
            precision.
        inplace: backends may change the caller's model instead of a copy that shares its weights.
        keep_original: False lets backends take over the memory of the original's weights.
        freeze_values: capture models whose Python code reads values of inputs, too.
        audit: compare calls with the original: True for the first call of each new size class, a
            number below 1 for that share of the time besides, False for never.
        measure_speed: time each variant against the original once it is built.

    Raises:
        CpuaccelError: the tolerance is negative or not a number, or the share is not below 1.
    """

    strict: bool = False
    tolerance: float | None = None
    inplace: bool = False
    keep_original: bool = True
    measure_speed: bool = True
    freeze_values: bool = False
    audit: bool | float = True

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance >= 0:
            raise CpuaccelError(f"tolerance must be >= 0, got {self.tolerance!r}")
        if not isinstance(self.audit, bool) and not 0 <= self.audit < 1:
            raise CpuaccelError(f"audit must be True, False or a share below 1, got {self.audit!r}")

    @property
    def audit_share(self) -> float:
        """The share of the time for comparing calls besides those of new sizes."""
        return 0.0 if isinstance(self.audit, bool) else self.audit
