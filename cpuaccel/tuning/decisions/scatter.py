"""The chart of speed against error on the page of a search."""

import math
from collections.abc import Sequence

from cpuaccel.tuning.decisions.result import CandidateStatus, Row

WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 24, 16, 36
_LETTER = 7
"""Pixels of an average letter in a label."""
_NEAR, _TEXT = 200, 13
"""Pixels: labels that begin closer than this may overlap; height of a line."""
_LEAST = 1e-8
"""Errors below this, and none, are drawn at the left edge."""


def scatter(rows: Sequence[Row]) -> dict[str, object]:
    """Return the grid and a point for each candidate that was measured and compared, in pixels."""
    shown = [(row, row.speedup.median) for row in rows if row.speedup and row.differences]
    if not shown:
        return {"points": []}
    exponents = [math.log10(max(row.error or 0.0, _LEAST)) for row, _ in shown]
    low, high = (
        math.floor(min(exponents)),
        max(math.ceil(max(exponents)), math.floor(min(exponents)) + 1),
    )
    top = max([1.0, *(speed for _, speed in shown)]) * 1.1

    def across(exponent: float) -> float:
        return round(_LEFT + (exponent - low) / (high - low) * (WIDTH - _LEFT - _RIGHT), 1)

    def down(speed: float) -> float:
        return round(HEIGHT - _BOTTOM - speed / top * (HEIGHT - _TOP - _BOTTOM), 1)

    points: list[dict[str, object]] = []
    labels: list[tuple[float, float]] = []
    for (row, speed), exponent in zip(shown, exponents):
        x = across(exponent)
        label_y = _free_height(x, down(speed) + 4, labels)
        labels.append((x, label_y))
        fits = x + 10 + _LETTER * len(str(row.candidate)) < WIDTH
        points.append(
            {
                "x": x,
                "y": down(speed),
                "label": str(row.candidate),
                "label_y": label_y,
                "label_x": x + 9 if fits else x - 9,
                "anchor": "start" if fits else "end",
                "chosen": row.status is CandidateStatus.CHOSEN,
            }
        )
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "points": points,
        "lines": [
            *(_across(down(speed), f"{speed}x") for speed in _steps(top)),
            *(_down(across(power), power) for power in range(low, high + 1)),
        ],
    }


def _free_height(x: float, y: float, labels: Sequence[tuple[float, float]]) -> float:
    """Return the first height from ``y`` upwards at which a label at ``x`` covers no other."""
    while any(abs(x - left) < _NEAR and abs(y - height) < _TEXT for left, height in labels):
        y -= 1
    return y


def _steps(top: float) -> list[int]:
    """Choose at most seven whole speedups up to the highest."""
    step = max(1, math.ceil(top / 7))
    return list(range(0, math.floor(top) + 1, step))


def _across(y: float, label: str) -> dict[str, object]:
    ends = {"x1": _LEFT, "x2": WIDTH - _RIGHT, "y1": y, "y2": y}
    return {**ends, "x": _LEFT - 8, "y": y + 4, "anchor": "end", "label": label}


def _down(x: float, power: int) -> dict[str, object]:
    ends = {"x1": x, "x2": x, "y1": _TOP, "y2": HEIGHT - _BOTTOM}
    label = f"{10.0**power:.0%}" if power >= -2 else f"1e{power}"
    return {**ends, "x": x, "y": HEIGHT - 14, "anchor": "middle", "label": label}
