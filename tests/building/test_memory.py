"""Memory stays as it is over thousands of calls of changing shapes.

Longer, with every backend and with threads: benchmarks/soak.py.
"""

import gc
import random
from typing import ClassVar

import psutil
import pytest

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Call, Faithful, Fake, batch, encoder

CALLS, FIRST = 2000, 500
MOST = 8 * 2**20
"""Bytes: a fifth of what the calls' answers take together."""


class Hoarding(Fake):
    """Keeps all its answers."""

    name = "hoarding"
    kept: ClassVar[list[object]] = []

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        answer = model(**inputs)
        self.kept.append(answer)
        return answer


def growth(backend: str) -> int:
    """Bytes that the process grew by, after the first calls."""
    fast = cpuaccel.optimize(encoder(), [backend], example_inputs=batch(), strict=True)
    sizes = random.Random(0)
    for call in range(CALLS):
        if call == FIRST:
            before = resident()
        fast(**batch(sizes.randint(2, 12), sizes.randint(24, 72)))
    assert fast.report.calls == {"optimized": CALLS}
    assert len(fast.variants) == 1
    return resident() - before


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("backend", ["faithful", "jit"])
def test_it_is_flat(offer: Offer, backend: str) -> None:
    offer(Faithful)
    assert growth(backend) < MOST


def test_what_is_kept_would_show(offer: Offer) -> None:
    offer(Hoarding)
    try:
        assert growth("hoarding") > 2 * MOST
    finally:
        Hoarding.kept.clear()
