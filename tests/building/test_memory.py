"""Memory does not grow over thousands of calls with varying shapes.

benchmarks/soak.py does the same for longer, with every backend and with threads.
"""

import gc
import random
from itertools import pairwise
from typing import ClassVar

import psutil
import pytest

import cpuaccel
from tests.conftest import Offer, Python
from tests.fake_backends import Call, Fake, batch, encoder
from tests.required import ROOT

CALLS, WINDOWS = 500, 3
LIMIT = 8 * 2**20 // WINDOWS
"""Bytes in one window: a fifth of the size of its outputs together."""


class Leaking(Fake):
    """Keeps a reference to each output."""

    name = "leaking"
    outputs: ClassVar[list[object]] = []

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        output = model(**inputs)
        self.outputs.append(output)
        return output


def growth(backend: str) -> int:
    """Least growth of the process's resident memory in a window of calls, in bytes.

    A leak grows in every window; the arenas of an allocator grow in some.
    """
    fast = cpuaccel.optimize(encoder(), [backend], example_inputs=batch(), strict=True)
    sizes = random.Random(0)
    sampled = []
    for _ in range(1 + WINDOWS):  # the first one warms up
        for _ in range(CALLS):
            fast(**batch(sizes.randint(2, 12), sizes.randint(24, 72)))
        sampled.append(resident())
    assert fast.report.calls == {"optimized": CALLS * (1 + WINDOWS)}
    assert len(fast.variants) == 1
    return min(after - before for before, after in pairwise(sampled))


GROWTH = """
import sys
import cpuaccel
from tests.building.test_memory import growth
from tests.conftest import Plugin
from tests.fake_backends import Faithful

cpuaccel.plugin_host().register(Plugin(cpuaccel_backends=lambda: [Faithful]), "the test's plugin")
print(growth(sys.argv[1]))
"""


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("backend", ["faithful", "jit"])
def test_memory_does_not_grow_with_calls(python: Python, backend: str) -> None:
    """In a process of its own: engines that ran before in this one may allocate meanwhile."""
    assert int(python(GROWTH, backend, path=(ROOT,)).stdout) < LIMIT


def test_a_leak_exceeds_the_limit(offer: Offer) -> None:
    offer(Leaking)
    try:
        assert growth("leaking") > 2 * LIMIT
    finally:
        Leaking.outputs.clear()
