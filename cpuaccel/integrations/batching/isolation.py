"""Computing a batch so that a row that raises costs the others nothing but time."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cpuaccel.errors import CpuaccelError, describe_error
from cpuaccel.integrations.batching.groups import group_by_tokens
from cpuaccel.integrations.batching.task import Row

logger = logging.getLogger("cpuaccel")

RowT = TypeVar("RowT")
TokenRowT = TypeVar("TokenRowT", bound=Row)
Output = TypeVar("Output")


@dataclass(frozen=True)
class Failed:
    """What a row raised when it was computed alone."""

    error: Exception


def compute_isolated(
    run: Callable[[Sequence[RowT]], Sequence[Output]], rows: Sequence[RowT]
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


def compute_in_groups(
    run: Callable[[Sequence[TokenRowT]], Sequence[Output]], rows: Sequence[TokenRowT], tokens: int
) -> list[Output | Failed]:
    """Compute rows in batches of similar length, of at most so many tokens or one row.

    Returns:
        In the order of the rows, what ``compute_isolated`` returns.
    """
    found: dict[int, Output | Failed] = {}
    for group in group_by_tokens([row.tokens for row in rows], tokens):
        found.update(zip(group, compute_isolated(run, [rows[index] for index in group])))
    return [found[index] for index in range(len(rows))]
