"""Computing a column of texts, in groups of similar length, with an error for each bad row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpuaccel.errors import describe_error
from cpuaccel.integrations.batching.isolation import Failed, compute_in_groups, compute_isolated
from cpuaccel.report import CallKey, Report

ERROR = "error"
"""The column that says why a row has no output."""

SERVED_BY = "served_by"
"""The column that says what computed a row."""


FEW = 8
"""So many texts may all be bad ones, such as those of the last block of a job."""


@dataclass(frozen=True)
class Column:
    """The outputs of a column, row by row.

    Attributes:
        outputs: None where there is an error.
        errors: why there is no output.
        served_by: the steps that were applied to the model that computed the row, with commas, or
            a key of ``cpuaccel.report.CallKey`` where the original did; None for errors.
    """

    outputs: list[Any]
    errors: list[str | None]
    served_by: list[str | None]


def compute_column(task: Any, items: Sequence[object], tokens: int) -> Column:
    """Compute a task on texts, in batches of at most so many tokens.

    Raises:
        Exception: what the first row raised, if none of more than ``FEW`` texts could be computed:
            then the model is at fault, and not the rows.
    """
    outputs: list[Any] = [None] * len(items)
    errors: list[Exception | None] = [None] * len(items)
    served_by: list[str | None] = [None] * len(items)
    places = _texts(items, errors)

    def encode(texts: Sequence[object]) -> Sequence[Any]:
        rows: Sequence[Any] = task.encode(texts)
        return rows

    def run(rows: Sequence[Any]) -> list[tuple[Any, str]]:
        before = task.calls
        found = task.run(rows)
        server = _server(task.report, task.calls - before)
        return [(output, server) for output in found]

    encoded = compute_isolated(encode, [items[place] for place in places]) if places else []
    rows = {}
    for place, row in zip(places, encoded):
        if isinstance(row, Failed):
            errors[place] = row.error
        else:
            rows[place] = row
    for place, answer in zip(rows, compute_in_groups(run, list(rows.values()), tokens)):
        if isinstance(answer, Failed):
            errors[place] = answer.error
        else:
            outputs[place], served_by[place] = answer
    if len(rows) > FEW and not any(served_by):
        raise next(error for error in (errors[place] for place in rows) if error is not None)
    texts = [None if error is None else describe_error(error) for error in errors]
    return Column(outputs, texts, served_by)


def _texts(items: Sequence[object], errors: list[Exception | None]) -> list[int]:
    """Return the places of texts, and note an error for all others."""
    places = []
    for place, item in enumerate(items):
        if isinstance(item, str):
            places.append(place)
        else:
            errors[place] = TypeError(f"expected a text, got {type(item).__name__}")
    return places


def _server(report: Report, calls: Counter[str]) -> str:
    """Return what served these calls: one by the original counts for all."""
    by_original = sorted(key for key in calls if key != CallKey.OPTIMIZED)
    if by_original or not calls:
        return by_original[0] if by_original else CallKey.METHOD
    if report.generation is not None:
        return report.generation.outcome.step
    return ",".join(report.applied)
