"""Memory does not grow over thousands of calls with varying shapes.

benchmarks/soak.py does the same for longer, with every backend and with threads.
"""

import gc
import random
from typing import ClassVar

import psutil
import pytest

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Call, Faithful, Fake, batch, encoder

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


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("backend", ["faithful", "jit"])
def test_memory_does_not_grow_with_calls(offer: Offer, backend: str) -> None:
    offer(Faithful)
    # Threads of engines that ran before in this process may allocate meanwhile; a leak is there
    # each time.
    assert any(growth(backend) < LIMIT for _ in range(3))


def test_a_leak_exceeds_the_limit(offer: Offer) -> None:
    offer(Leaking)
    try:
        assert growth("leaking") > 2 * LIMIT
    finally:
        Leaking.outputs.clear()
