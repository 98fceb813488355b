"""Tests of ending OpenMP's threads, in a process with several of them."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("sentence_transformers", minversion="5.7")

from cpuaccel.integrations.tasks.openmp import MAPS

pytestmark = pytest.mark.skipif(not MAPS.exists(), reason="reads /proc/self/maps")

PROGRAM = """
import os, torch
from cpuaccel.integrations.tasks.openmp import end_openmp_threads

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(3)
values = torch.rand(1000, 1000)
before = threads()
expected = values.exp()
started = threads()
end_openmp_threads()
after = threads()
assert torch.equal(values.exp(), expected)
print(started - before, after - before, threads() - before)
"""


def test_threads_end_and_start_again_when_they_are_needed():
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["2", "0", "2"]
