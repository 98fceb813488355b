"""Free memory goes back to the system, and packed weights go to huge pages unchanged."""

import mmap
import platform
from pathlib import Path

import pytest
import torch

from cpuaccel_plugins.aten_graph import memory
from cpuaccel_plugins.aten_graph.memory import trim_heap, use_huge_pages
from tests.required import HUGE_PAGES, requires

MIB = 2**20


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE


def in_huge_pages() -> int:
    """Bytes of this process in huge pages."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    (line,) = [line for line in rollup.splitlines() if line.startswith("AnonHugePages:")]
    return int(line.split()[1]) * 1024


@pytest.fixture
def packed() -> list[torch.Tensor]:
    return [pack(torch.randn(2048, 1024)) for _ in range(4)]


def pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is trimmed")
def test_free_memory_between_other_memory_is_returned() -> None:
    # Small enough for the heap, and every other one stays, so that none is at the heap's end.
    tensors = [torch.ones(64 * 1024 // 4) for _ in range(2000)]
    del tensors[::2]
    before = resident()
    trim_heap()
    assert before - resident() > 30 * MIB
    assert all(bool((tensor == 1).all()) for tensor in tensors)


def test_other_systems_are_left_alone(
    packed: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", None)
    monkeypatch.setattr(memory, "_c_library", memory._c_library.__wrapped__)
    trim_heap()
    assert use_huge_pages(packed) == 0


@requires(*HUGE_PAGES)
def test_weights_in_huge_pages_are_unchanged() -> None:
    weights = [torch.randn(2048, 1024) for _ in range(4)]
    packed = [pack(weight) for weight in weights]
    before = in_huge_pages()
    moved = use_huge_pages(packed)
    assert 0 < moved <= sum(weight.nbytes for weight in weights)
    assert in_huge_pages() - before >= moved // 2  # some may have been there before
    for weight, one in zip(weights, packed):
        assert torch.equal(one.to_dense(), weight)


@requires(*HUGE_PAGES)
def test_huge_pages_are_counted_again(packed: list[torch.Tensor]) -> None:
    assert use_huge_pages(packed) == use_huge_pages(packed) > 0


@requires(*HUGE_PAGES)
def test_weights_smaller_than_huge_pages_stay_where_they_are() -> None:
    before = in_huge_pages()
    assert use_huge_pages([pack(torch.randn(8, 8))]) == 0
    assert in_huge_pages() == before


def test_a_system_without_transparent_support(
    packed: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_HUGE_PAGE_SIZE", tmp_path / "absent")
    assert use_huge_pages(packed) == 0
