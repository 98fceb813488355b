from dataclasses import replace
from pathlib import Path

import pytest

from cpuaccel.cli.doctor import Advice, Memory, advise
from cpuaccel.plugin.host import Host

HOST = Host(
    machine="x86_64",
    processor="Some Processor",
    microarchitecture="sapphirerapids",
    isa=frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}),
    torch_isa="AVX512",
    cores=4,
    threads=4,
    memory=2**34,
    bf16_speed=3.0,
    python="3.11.7",
    packages={},
)
MEMORY = Memory(allocator="jemalloc", huge_pages="always", torch_requests=False)


def about(topic: str, host: Host = HOST, memory: Memory = MEMORY) -> Advice:
    (found,) = [advice for advice in advise(host, memory) if advice.topic == topic]
    return found


def test_a_well_configured_host_needs_no_remedy() -> None:
    assert [advice.remedy for advice in advise(HOST, MEMORY)] == [""] * 4


@pytest.mark.parametrize(("threads", "finding"), [(8, "compete for cores"), (2, "are idle")])
def test_a_number_of_threads_other_than_the_cores(threads: int, finding: str) -> None:
    advice = about("threads", replace(HOST, threads=threads))
    assert finding in advice.finding
    assert "OMP_NUM_THREADS=4" in advice.remedy


def test_torch_does_not_use_avx512_of_the_processor() -> None:
    advice = about("instructions", replace(HOST, torch_isa="AVX2"))
    assert "ATEN_CPU_CAPABILITY" in advice.remedy


def test_avx2_needs_no_remedy_on_a_processor_without_avx512() -> None:
    plain = replace(HOST, torch_isa="AVX2", isa=frozenset({"avx2", "fma"}))
    assert about("instructions", plain).remedy == ""


def test_the_c_library_allocator() -> None:
    assert "LD_PRELOAD" in about("allocator", memory=replace(MEMORY, allocator="libc")).remedy


@pytest.mark.parametrize(
    ("setting", "torch_requests", "remedy"),
    [
        ("madvise", False, "THP_MEM_ALLOC_ENABLE=1"),
        ("madvise", True, None),
        ("never", True, "echo madvise | sudo tee"),
        ("always", False, None),
    ],
)
def test_huge_pages(setting: str, torch_requests: bool, remedy: str | None) -> None:
    memory = replace(MEMORY, huge_pages=setting, torch_requests=torch_requests)
    found = about("huge pages", memory=memory).remedy
    assert remedy in found if remedy else not found


def test_huge_pages_are_left_out_if_the_setting_cannot_be_read() -> None:
    topics = [advice.topic for advice in advise(HOST, replace(MEMORY, huge_pages=""))]
    assert "huge pages" not in topics


def test_memory_settings_are_read_from_the_process_and_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/maps").write_text("7f r-xp 0 /usr/lib/libtcmalloc_minimal.so.4\n")
    settings = tmp_path / "sys/kernel/mm/transparent_hugepage"
    settings.mkdir(parents=True)
    (settings / "enabled").write_text("always [madvise] never\n")
    found = Memory.detect(tmp_path, {"THP_MEM_ALLOC_ENABLE": "1"})
    assert found == Memory("tcmalloc", "madvise", torch_requests=True)


def test_memory_settings_without_proc(tmp_path: Path) -> None:
    assert Memory.detect(tmp_path, {}) == Memory("libc", "", torch_requests=False)
    preloaded = Memory.detect(tmp_path, {"LD_PRELOAD": "/opt/libjemalloc.so.2"})
    assert preloaded.allocator == "jemalloc"
