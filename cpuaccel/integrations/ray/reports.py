"""What computed the rows of a job, of all workers together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute
import ray.data

from cpuaccel.integrations.workers.column import SERVED_BY

logger = logging.getLogger("cpuaccel")

MOST_FALLBACKS = 0.01
"""Share of rows that the original may compute without an alarm."""

_FALLBACK = "fallback:"


@dataclass(frozen=True)
class JobReport:
    """What computed the rows of a job.

    Attributes:
        served_by: number of rows by the steps that were applied to the model that computed them,
            or by a key of ``cpuaccel.report.CallKey`` where the original did.
        failed: rows without an output, with the reason in their column ``error``.
        most_fallbacks: share of rows that the original may compute without an alarm.
    """

    served_by: Mapping[str, int]
    failed: int
    most_fallbacks: float

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.served_by.values()) + self.failed

    @property
    def fallbacks(self) -> int:
        """Rows that the original computed."""
        return sum(n for name, n in self.served_by.items() if name.startswith(_FALLBACK))

    @property
    def alarm(self) -> str:
        """What is wrong; empty if nothing is."""
        computed = self.rows - self.failed
        if self.fallbacks <= self.most_fallbacks * computed:
            return ""
        return (
            f"the original computed {self.fallbacks} of {computed} rows, more than "
            f"{self.most_fallbacks:.1%}: {self}. The report of the model on one node says why"
        )

    def __str__(self) -> str:
        counted = sorted(self.served_by.items(), key=lambda item: -item[1])
        lines = [f"{count} by {name}" for name, count in counted]
        return ", ".join([*lines, *([f"{self.failed} failed"] if self.failed else [])]) or "no rows"


def report(out: ray.data.Dataset, most_fallbacks: float = MOST_FALLBACKS) -> JobReport:
    """Count what computed the rows, and log a warning if the original computed too many.

    Args:
        out: what a class of this package computed: a materialized dataset, or what was written and
            read again, such as ``ray.data.read_parquet(path)``. A dataset that is neither is
            computed for this.
        most_fallbacks: share of the computed rows that the original may compute.
    """
    served_by: dict[str, int] = {}
    failed = 0
    counted = out.select_columns([SERVED_BY]).map_batches(_count, batch_format="pyarrow")
    for row in counted.iter_rows():
        if row[SERVED_BY] is None:
            failed += row["count"]
        else:
            served_by[row[SERVED_BY]] = served_by.get(row[SERVED_BY], 0) + row["count"]
    found = JobReport(served_by, failed, most_fallbacks)
    if found.alarm:
        logger.warning("%s", found.alarm)
    return found


def _count(block: pa.Table) -> pa.Table:
    column = block[SERVED_BY].combine_chunks()
    counts = pa.compute.value_counts(column)
    return pa.table({SERVED_BY: counts.field("values"), "count": counts.field("counts")})
