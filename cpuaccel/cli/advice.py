"""What the user can do around cpuaccel to be faster: threads, vector instructions, memory."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cpuaccel.plugin.host import Host

_ALLOCATOR = re.compile(r"\blib(jemalloc|tcmalloc|mimalloc)")

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"})
"""What torch wants to see before it dispatches to AVX512."""


@dataclass(frozen=True)
class Memory:
    """How this process gets its memory.

    Attributes:
        allocator: jemalloc, tcmalloc or mimalloc where one is loaded, else the C library's own.
        huge_pages: the kernel's setting for transparent huge pages: always, madvise or never;
            empty where it can't be read.
        torch_asks: whether torch is told to ask for huge pages, which ``madvise`` waits for.
    """

    allocator: str
    huge_pages: str
    torch_asks: bool

    @classmethod
    def detect(
        cls, filesystem: Path = Path("/"), environment: Mapping[str, str] = os.environ
    ) -> "Memory":
        """Look at this process.

        Args:
            filesystem: root below which ``proc`` and ``sys`` are looked for.
            environment: variables of the process.
        """
        maps = _read(filesystem / "proc/self/maps") or environment.get("LD_PRELOAD", "")
        loaded = _ALLOCATOR.search(maps)
        setting = _read(filesystem / "sys/kernel/mm/transparent_hugepage/enabled")
        chosen = re.search(r"\[(\w+)\]", setting)
        return cls(
            allocator=loaded.group(1) if loaded else "libc",
            huge_pages=chosen.group(1) if chosen else "",
            torch_asks=environment.get("THP_MEM_ALLOC_ENABLE") == "1",
        )


@dataclass(frozen=True)
class Advice:
    """One finding.

    Attributes:
        topic: what it is about.
        finding: what is true.
        remedy: what to do; empty where all is well.
    """

    topic: str
    finding: str
    remedy: str = ""


def advise(host: Host, memory: Memory) -> list[Advice]:
    """Say what is well and what could be better."""
    return [_threads(host), _dispatch(host), _allocator(memory), *_huge_pages(memory)]


def _threads(host: Host) -> Advice:
    finding = f"torch uses {host.threads} threads, and this process may use {host.cores} cores"
    if host.threads == host.cores:
        return Advice("threads", finding)
    remedy = f"Set OMP_NUM_THREADS={host.cores}, or call torch.set_num_threads({host.cores})"
    if host.threads > host.cores:
        return Advice("threads", f"{finding}: they take turns and wait for each other", remedy)
    remedy += ". Where it was set on purpose, as for several processes side by side, leave it"
    return Advice("threads", f"{finding}: some stand idle", remedy)


def _dispatch(host: Host) -> Advice:
    finding = f"torch dispatches to {host.torch_isa}"
    if host.isa >= _AVX512 and not host.torch_isa.startswith("AVX512"):
        return Advice(
            "instructions",
            f"{finding}, though the processor has AVX512",
            "Unset ATEN_CPU_CAPABILITY, or install a build of torch that has AVX512",
        )
    return Advice("instructions", finding)


def _allocator(memory: Memory) -> Advice:
    if memory.allocator != "libc":
        return Advice("allocator", f"{memory.allocator} is loaded")
    return Advice(
        "allocator",
        "memory comes from the C library, which may give pages back after every call and fault "
        "them in again on the next",
        "Install jemalloc or tcmalloc (Debian: libjemalloc2, libtcmalloc-minimal4) and start "
        "Python with LD_PRELOAD set to it; then measure",
    )


def _huge_pages(memory: Memory) -> list[Advice]:
    setting = memory.huge_pages
    if not setting:
        return []
    finding = f"transparent huge pages are set to {setting}"
    if setting == "always":
        return [Advice("huge pages", finding)]
    if setting == "madvise" and memory.torch_asks:
        return [Advice("huge pages", f"{finding}, and torch asks for them")]
    if setting == "madvise":
        return [
            Advice(
                "huge pages",
                f"{finding}, and torch does not ask for them",
                "Set THP_MEM_ALLOC_ENABLE=1; it pays where activations are large",
            )
        ]
    return [
        Advice(
            "huge pages",
            finding,
            "Have root write madvise to /sys/kernel/mm/transparent_hugepage/enabled, and set "
            "THP_MEM_ALLOC_ENABLE=1; it pays where activations are large",
        )
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
