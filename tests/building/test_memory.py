"""Memory does not grow over thousands of calls with varying shapes.

benchmarks/soak.py does the same for longer, with every backend and with threads.
"""

import gc
import random
from typing import ClassVar

import psutil
import pytest

import cpuaccel
from tests.conftest import Offer, Python
from tests.fake_backends import Call, Fake, batch, encoder
from tests.required import ROOT

CALLS, WARMUP = 2000, 500
LIMIT = 8 * 2**20
"""Bytes: a fifth of the size of all outputs together."""


class Leaking(Fake):
    """Keeps a reference to each output."""

    name = "leaking"
    outputs: ClassVar[list[object]] = []

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        output = model(**inputs)
        self.outputs.append(output)
        return output


def growth(backend: str) -> int:
    """Growth of the process's resident memory in bytes, after the warm-up."""
    fast = cpuaccel.optimize(encoder(), [backend], example_inputs=batch(), strict=True)
    sizes = random.Random(0)
    for call in range(CALLS):
        if call == WARMUP:
            before = resident()
        fast(**batch(sizes.randint(2, 12), sizes.randint(24, 72)))
    assert fast.report.calls == {"optimized": CALLS}
    assert len(fast.variants) == 1
    return resident() - before


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
