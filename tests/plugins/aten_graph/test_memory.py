"""Whether memory that a build has freed goes back to the system."""

import mmap
import platform
from pathlib import Path

import pytest
import torch

from cpuaccel_plugins.aten_graph.memory import trim_heap

MIB = 2**20


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
def test_what_lies_free_between_other_things_goes_back() -> None:
    # Small enough to come from the heap; every other one stays, so that none is at its end.
    tensors = [torch.ones(64 * 1024 // 4) for _ in range(2000)]
    del tensors[::2]
    before = resident()
    trim_heap()
    assert before - resident() > 30 * MIB
    assert all(bool((tensor == 1).all()) for tensor in tensors)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", None)
    trim_heap()
