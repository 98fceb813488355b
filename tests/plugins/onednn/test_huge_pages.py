"""Whether weights in huge pages are what they were, and whether they are there."""

from pathlib import Path

import pytest
import torch

from cpuaccel_plugins.aten_graph import memory
from cpuaccel_plugins.aten_graph.memory import use_huge_pages
from cpuaccel_plugins.onednn.operators import mkldnn


def huge_bytes() -> int:
    """What this process has in huge pages."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    (line,) = [line for line in rollup.splitlines() if line.startswith("AnonHugePages:")]
    return int(line.split()[1]) * 1024


@pytest.fixture
def weights() -> list[torch.Tensor]:
    return [torch.randn(2048, 1024) for _ in range(4)]


def test_packed_weights_stay_as_they_are(weights: list[torch.Tensor]) -> None:
    packed = [mkldnn._reorder_linear_weight(weight) for weight in weights]
    before = huge_bytes()
    gathered = use_huge_pages(packed)
    if not gathered:
        pytest.skip("this system has no huge pages to give")
    assert 0 < gathered <= sum(weight.nbytes for weight in weights)
    assert huge_bytes() - before >= gathered // 2  # some may have been there before
    for weight, one in zip(weights, packed):
        assert torch.equal(one.to_dense(), weight)


def test_asking_twice_is_as_good_as_once(weights: list[torch.Tensor]) -> None:
    packed = [mkldnn._reorder_linear_weight(weight) for weight in weights]
    assert use_huge_pages(packed) == use_huge_pages(packed)


def test_small_weights_are_left_where_they_are() -> None:
    assert use_huge_pages([mkldnn._reorder_linear_weight(torch.randn(8, 8))]) == 0


def test_a_system_without_huge_pages(
    weights: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_HUGE_PAGE_SIZE", tmp_path / "absent")
    assert use_huge_pages([mkldnn._reorder_linear_weight(weight) for weight in weights]) == 0
