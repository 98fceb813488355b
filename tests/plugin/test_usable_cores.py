import os
from pathlib import Path

import psutil
import pytest

from cpuaccel.plugin.host import usable_cores


def cgroup(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(quota: str, period: str) -> dict[str, str]:
    return {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": period}


allowed = len(psutil.Process().cpu_affinity() or ())


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": "900000000 100000\n"},
        {"cpu.max": "100000 0\n"},
        {"cpu.max": "nonsense\n"},
        v1("-1\n", "100000\n"),
        v1("nonsense\n", "100000\n"),
        {"cpu/cpu.cfs_quota_us": "100000\n"},
    ],
    ids=[
        "no control group",
        "no limit",
        "a limit above the machine",
        "a period of nothing",
        "not readable",
        "version 1 without limit",
        "version 1 not readable",
        "version 1 without period",
    ],
)
def test_without_a_quota_the_affinity_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cores(cgroup(tmp_path, files)) == allowed


@pytest.mark.parametrize(
    "files",
    [{"cpu.max": "100000 100000\n"}, {"cpu.max": "20000 100000\n"}, v1("50000\n", "100000\n")],
    ids=["one core", "less than one core", "version 1"],
)
def test_a_quota_limits_the_cores(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cores(cgroup(tmp_path, files)) == 1


@pytest.mark.skipif(allowed < 2, reason="this process may use one core only")
def test_a_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    assert usable_cores(cgroup(tmp_path, {"cpu.max": "150000 100000\n"})) == 2


@pytest.mark.skipif(allowed < 2, reason="this process may use one core only")
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_limits_the_cores(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)
