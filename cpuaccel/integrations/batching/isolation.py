"""Computing a batch so that a row that raises costs the others nothing but time."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cpuaccel.errors import CpuaccelError, describe_error

logger = logging.getLogger("cpuaccel")

Row = TypeVar("Row")
Output = TypeVar("Output")


@dataclass(frozen=True)
class Failed:
    """What a row raised when it was computed alone."""

    error: Exception


def compute_isolated(
    run: Callable[[Sequence[Row]], Sequence[Output]], rows: Sequence[Row]
) -> list[Output | Failed]:
    """Compute a batch; where it raises, compute its halves, down to single rows.

    Returns:
        For each row its output, or what it raised alone.
    """
    try:
        outputs = run(rows)
        if len(outputs) != len(rows):
            raise CpuaccelError(f"{len(outputs)} outputs for {len(rows)} rows")
        return list(outputs)
    except Exception as error:
        if len(rows) == 1:
            return [Failed(error)]
        logger.warning(
            "a batch of %d rows raised %s: computing it in halves", len(rows), describe_error(error)
        )
    half = len(rows) // 2
    return compute_isolated(run, rows[:half]) + compute_isolated(run, rows[half:])
