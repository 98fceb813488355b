"""Choosing the fastest way to compute something on this machine: measured once, remembered."""

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from cpuaccel_plugins.aten_graph.memory import trim_heap

Key = TypeVar("Key")
Candidate = TypeVar("Candidate")

WARM_UPS = 2


class FastestChoice(Generic[Key, Candidate]):
    """Chooses the fastest candidate for a kind of operation, measuring each kind once.

    Times have any unit: only ratios count. Of equally fast candidates, the first is chosen.
    """

    def __init__(
        self,
        measure: Callable[[Key], Mapping[Candidate, float]],
        handicaps: Mapping[Candidate, float] | None = None,  # factors on times, 1 by default
        fixed: Candidate | None = None,  # chosen without measuring
    ) -> None:
        self._measure = measure
        self._handicaps = handicaps or {}
        self._fixed = fixed
        self.times: dict[Key, Mapping[Candidate, float]] = {}

    def fastest(self, key: Key) -> Candidate:
        """The fastest candidate for a kind of operation."""
        if self._fixed is not None:
            return self._fixed
        if key not in self.times:
            self.times[key] = self._measure(key)
            trim_heap()
        times = self.times[key]
        return min(times, key=lambda name: times[name] * self._handicaps.get(name, 1.0))


def least_times(
    candidates: Mapping[Candidate, Callable[[], object]], rounds: int
) -> dict[Candidate, float]:
    """Call candidates in turn and return the least time of each, in seconds."""
    # The least, not the median: other work on the machine only adds to a time.
    least = dict.fromkeys(candidates, float("inf"))
    for call in candidates.values():
        for _ in range(WARM_UPS):
            call()
    for _ in range(rounds):
        for name, call in candidates.items():
            begin = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - begin)
    return least
