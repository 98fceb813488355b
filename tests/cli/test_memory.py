import gc
from pathlib import Path

import pytest
import torch

from cpuaccel.cli.bench.memory import peak_memory

MIB = 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_includes_memory_that_is_freed_within_the_block() -> None:
    with peak_memory() as peak:
        torch.ones(64 * MIB // 4)
        gc.collect()
    assert peak.bytes is not None
    assert 60 * MIB < peak.bytes < 80 * MIB


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_excludes_memory_from_before_the_block() -> None:
    held = torch.ones(64 * MIB // 4)
    with peak_memory() as peak:
        held.add_(1)
    assert peak.bytes is not None
    assert peak.bytes < 8 * MIB


def test_unknown_without_proc(tmp_path: Path) -> None:
    with peak_memory(tmp_path / "missing") as peak:
        pass
    assert peak.bytes is None
