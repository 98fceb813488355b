"""Reading the result of a search."""

import cpuaccel
from cpuaccel.tuning.decisions.result import Row, Tuning


def tuning(optimized: cpuaccel.OptimizedModel) -> Tuning:
    found = optimized.report.tuning
    assert found is not None
    return found


def rows(optimized: cpuaccel.OptimizedModel) -> dict[str, Row]:
    return {row.candidate.name: row for row in tuning(optimized).rows}
