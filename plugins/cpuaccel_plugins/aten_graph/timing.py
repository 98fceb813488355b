"""Holding two ways of computing the same against each other, in milliseconds."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

NameT = TypeVar("NameT", bound=str)

WARM_UPS = 2


def fastest(candidates: Mapping[NameT, Callable[[], object]], rounds: int) -> dict[NameT, float]:
    """The least time that each takes, called in turn.

    The least, not the median: what else runs on the machine only adds to a time.

    Returns:
        Seconds by name.
    """
    least = dict.fromkeys(candidates, float("inf"))
    for call in candidates.values():
        for _ in range(WARM_UPS):
            call()
    for _ in range(rounds):
        for name, call in candidates.items():
            begun = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - begun)
    return least
