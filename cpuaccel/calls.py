"""Counting calls from any number of threads."""

import os
import threading
from collections import Counter

_counting = threading.Lock()
"""One for all counters: a lock of its own would keep a report from being copied."""


def _renew() -> None:
    global _counting
    _counting = threading.Lock()


# Another thread may hold it when the process forks, and is not there to let go of it in the child.
os.register_at_fork(after_in_child=_renew)


class Calls:
    """How many calls there were, by what answered them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Count one call."""
        with _counting:
            self._counts[what] += 1

    def counts(self) -> Counter[str]:
        """The counts so far, as a copy that calls under way do not change."""
        with _counting:
            return self._counts.copy()
