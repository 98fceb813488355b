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
        measure_speed: time each variant against the original once it is built.

    Raises:
        CpuaccelError: the tolerance is negative or not a number.
    """

    strict: bool = False
    tolerance: float | None = None
    inplace: bool = False
    keep_original: bool = True
    measure_speed: bool = True

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance >= 0:
            raise CpuaccelError(f"tolerance must be >= 0, got {self.tolerance!r}")
