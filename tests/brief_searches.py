"""Searches of tests: their candidates differ beyond any noise, or their speed is not asserted."""

import pytest


def measure_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches in this process measure each candidate for a moment."""
    monkeypatch.setattr("cpuaccel.tuning.budget.LONGEST_MEASURE", 0.5)
    monkeypatch.setattr("cpuaccel.tuning.runoff.TURN_SECONDS", 0.03)
    monkeypatch.setattr("cpuaccel.tuning.workers.throughput.SECONDS", 0.3)
