"""Time limits of tests that stretch on a machine that is slow or busy now."""

import time

NOMINAL_SECONDS = 0.02
"""What the loop below takes on a machine that has nothing else to do."""
SAMPLES = 10


def slowdown() -> float:
    """Measure how many times slower than usual this process runs now, at least 1."""
    start = time.perf_counter()
    for _ in range(SAMPLES):
        sum(range(1_000_000))
    seconds = time.perf_counter() - start
    return max(1.0, seconds / (SAMPLES * NOMINAL_SECONDS))


def stretched(seconds: float) -> float:
    """A time limit, in seconds, for what takes less than ``seconds`` on an idle machine."""
    return seconds * slowdown()
