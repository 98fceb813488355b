"""``cpuaccel doctor``."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cpuaccel.cli.arguments import BlockingOption, JsonOption, block_plugins
from cpuaccel.cli.console import heading, new_table, print_json, say, section, stdout
from cpuaccel.timing import format_ratio

if TYPE_CHECKING:
    from cpuaccel.plugin.host import Host
    from cpuaccel.plugin.verdict import Verdict

FLAGS = {
    "x86_64": (
        "avx2",
        "avx512f",
        "avx_vnni",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_bf16",
        "amx_int8",
    ),
    "aarch64": ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
}
"""Processor flags that matter for the speed of inference, by processor family."""

PACKAGES = (
    "torch",
    "transformers",
    "optimum",
    "intel-extension-for-pytorch",
    "onnxruntime",
    "openvino",
    "zentorch",
    "numpy",
)
"""Packages that backends use. Those that are not installed are not shown."""

_ALLOCATOR = re.compile(r"\blib(jemalloc|tcmalloc|mimalloc)")

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"})
"""Flags that torch requires to dispatch to AVX512."""


@dataclass(frozen=True)
class Memory:
    """The memory allocator and huge pages of this process.

    Attributes:
        huge_pages: always, madvise or never; empty if the kernel's setting can't be read.
        torch_requests: whether torch requests huge pages, which the setting madvise requires.
    """

    allocator: str
    huge_pages: str
    torch_requests: bool

    @classmethod
    def detect(
        cls, filesystem: Path = Path("/"), environment: Mapping[str, str] = os.environ
    ) -> "Memory":
        """Inspect this process."""
        maps = _read(filesystem / "proc/self/maps") or environment.get("LD_PRELOAD", "")
        loaded = _ALLOCATOR.search(maps)
        setting = _read(filesystem / "sys/kernel/mm/transparent_hugepage/enabled")
        chosen = re.search(r"\[(\w+)\]", setting)
        return cls(
            allocator=loaded.group(1) if loaded else "libc",
            huge_pages=chosen.group(1) if chosen else "",
            torch_requests=environment.get("THP_MEM_ALLOC_ENABLE") == "1",
        )


@dataclass(frozen=True)
class Advice:
    """A finding about the configuration of this process."""

    topic: str
    finding: str
    remedy: str = ""


def advise(host: "Host", memory: Memory) -> list[Advice]:
    """Check threads, vector instructions and memory."""
    return [_threads(host), _dispatch(host), _allocator(memory), *_huge_pages(memory)]


def _threads(host: "Host") -> Advice:
    finding = f"torch uses {host.threads} threads on {host.cores} available cores"
    if host.threads == host.cores:
        return Advice("threads", finding)
    remedy = f"Run: export OMP_NUM_THREADS={host.cores}"
    if host.threads > host.cores:
        return Advice("threads", f"{finding}: threads compete for cores", remedy)
    remedy += ", unless several processes share the cores"
    return Advice("threads", f"{finding}: some cores are idle", remedy)


def _dispatch(host: "Host") -> Advice:
    finding = f"torch dispatches to {host.torch_isa}"
    if host.isa >= _AVX512 and not host.torch_isa.startswith("AVX512"):
        return Advice(
            "instructions",
            f"{finding}, but the processor has AVX512",
            "Run: unset ATEN_CPU_CAPABILITY. If it is not set, install a build of torch with "
            "AVX512",
        )
    return Advice("instructions", finding)


def _allocator(memory: Memory) -> Advice:
    if memory.allocator != "libc":
        return Advice("allocator", f"{memory.allocator} is loaded")
    return Advice(
        "allocator",
        "the C library's allocator may return pages to the kernel after every call, which costs "
        "page faults in the next",
        "Measure with another one. Run (Debian): sudo apt-get install libjemalloc2 && "
        "export LD_PRELOAD=libjemalloc.so.2",
    )


def _huge_pages(memory: Memory) -> list[Advice]:
    setting = memory.huge_pages
    if not setting:
        return []
    finding = f"transparent huge pages: {setting}"
    request = "export THP_MEM_ALLOC_ENABLE=1"
    if setting == "never":
        allow = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        return [Advice("huge pages", finding, f"For large activations, run: {allow} && {request}")]
    if setting == "madvise" and not memory.torch_requests:
        finding += ", not requested by torch"
        return [Advice("huge pages", finding, f"For large activations, run: {request}")]
    return [Advice("huge pages", finding)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def doctor(
    pipeline: BlockingOption = None,
    json: JsonOption = False,
) -> None:
    """Show what this machine has, which backends work here, and how to make torch faster.

    For each backend that does not work here, it shows the reason and what to do. It ends with
    advice on threads, vector instructions and memory.
    """
    from cpuaccel.plugin.host import host
    from cpuaccel.plugin.manager import plugin_host

    block_plugins(pipeline)
    here = host()
    verdicts = _verdicts(here)
    advice = advise(here, Memory.detect())
    if json:
        print_json(
            {
                "host": here.to_dict(),
                "bfloat16": asdict(here.bf16()),
                "backends": {name: asdict(verdict) for name, verdict in verdicts.items()},
                "broken_plugins": [asdict(broken) for broken in plugin_host().broken],
                "blocked_plugins": [asdict(blocked) for blocked in plugin_host().blocked],
                "advice": [asdict(item) for item in advice],
            }
        )
        return
    _show_host(here)
    _show_backends(verdicts)
    for broken in plugin_host().broken:
        say(f"plugin {broken.plugin} failed to load: {broken.reason}")
    for blocked in plugin_host().blocked:
        say(f"plugin {blocked.plugin} is blocked by {blocked.by}")
    _show_advice(advice)
    _show_next()


def _verdicts(here: "Host") -> "dict[str, Verdict]":
    from cpuaccel.planning.plan import ask
    from cpuaccel.plugin.manager import plugin_host

    return {
        # Without validation, so that a required option does not prevent the check.
        name: ask(backend(backend.Options.model_construct()).check, here)
        for name, backend in sorted(plugin_host().backends.items())
    }


def _show_host(here: "Host") -> None:
    flags = FLAGS.get(here.machine, ())
    have = [flag for flag in flags if flag in here.isa]
    lack = [flag for flag in flags if flag not in here.isa]
    bf16 = here.bf16()
    speed = f"matrix products run about {format_ratio(here.bf16_speed)}x as fast as in float32"
    facts = {
        "processor": f"{here.processor} ({here.machine}, {here.microarchitecture})",
        "flags": " ".join(have) + (f"   missing: {' '.join(lack)}" if lack else ""),
        "torch": f"dispatches to {here.torch_isa}",
        "bfloat16": f"yes: {speed}" if bf16 else f"no. {bf16}.",
        "cores": f"{here.cores} usable, {here.threads} threads in torch",
        "memory": f"{here.memory / 2**30:.1f} GiB",
        "python": here.python,
        "packages": ", ".join(f"{p} {here.packages[p]}" for p in PACKAGES if p in here.packages),
    }
    heading("Host")
    table = new_table("", "")
    table.show_header = False
    for name, fact in facts.items():
        table.add_row(name, fact)
    stdout().print(table, markup=False, highlight=False)


def _show_next() -> None:
    section(
        "Next",
        (
            "cpuaccel bench config:bert-base --backends onednn --plot speed.svg",
            "cpuaccel tune ./my-model --html tuning.html",
        ),
    )


def _show_backends(verdicts: "dict[str, Verdict]") -> None:
    heading("Backends")
    table = new_table("backend", "works here", "reason", "remedy")
    for name, verdict in verdicts.items():
        works = Text("yes", "green") if verdict else Text("no", "yellow")
        table.add_row(name, works, Text(verdict.reason), Text(verdict.remedy))
    stdout().print(table, highlight=False)


def _show_advice(advice: list[Advice]) -> None:
    heading("Advice")
    table = new_table("topic", "finding", "remedy")
    for item in advice:
        table.add_row(item.topic, Text(item.finding), Text(item.remedy or "none needed"))
    stdout().print(table, highlight=False)
