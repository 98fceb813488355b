"""How a pipeline is built, whatever its steps are."""

from dataclasses import dataclass

from cpuaccel.errors import CpuaccelError


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The arguments of ``cpuaccel.optimize`` that concern building. Immutable and checked."""

    strict: bool = False
    tolerance: float | None = None
    inplace: bool = False
    keep_original: bool = True
    measure_speed: bool = True

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance >= 0:
            raise CpuaccelError(f"tolerance must be >= 0, got {self.tolerance!r}")
