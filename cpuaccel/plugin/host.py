"""What this machine and environment offer, as plain data."""

import contextlib
import functools
import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import archspec.cpu
import archspec.cpu.detect
import psutil
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from cpuaccel.plugin.verdict import Verdict
from cpuaccel.timing import interleave

NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Processor flags: any one of them means native bfloat16 arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine and its environment. ``cpuaccel.testing.fake_host`` makes one for tests.

    Attributes:
        machine: processor family, such as ``x86_64`` or ``aarch64``.
        processor: the processor's own name.
        microarchitecture: archspec's name for it. May be too old in virtual machines, which hide
            flags: decide by ``isa``.
        isa: the processor's flags, in Linux' spelling.
        torch_isa: the vector instructions that torch dispatches to, such as ``AVX2`` or
            ``AVX512``. ``ATEN_CPU_CAPABILITY`` may limit them.
        cores: cores this process may use, by affinity and control group.
        threads: threads that torch uses within one operator.
        memory: main memory in bytes.
        bf16_speed: measured speed of a bfloat16 matrix product relative to a float32 one.
        python: version of Python.
        packages: versions of the installed distributions, by canonical name.
    """

    machine: str
    processor: str
    microarchitecture: str
    isa: frozenset[str]
    torch_isa: str
    cores: int
    threads: int
    memory: int
    bf16_speed: float
    python: str
    packages: Mapping[str, str]

    @classmethod
    def detect(cls) -> "Host":
        """Read the facts of this machine. Takes tens of milliseconds; imports no engine."""
        detected = archspec.cpu.detect.detected_info()
        return cls(
            machine=platform.machine(),
            processor=archspec.cpu.brand_string() or platform.processor(),
            microarchitecture=archspec.cpu.host().name,
            isa=frozenset(detected.features),
            torch_isa=torch_isa(),
            cores=usable_cores(),
            threads=torch.get_num_threads(),
            memory=psutil.virtual_memory().total,
            bf16_speed=_bf16_speed(),
            python=platform.python_version(),
            packages=_installed_packages(),
        )

    def version(self, package: str) -> Version | None:
        """Return an installed package's version without pre-release and local parts.

        Debian's torch 1.13.0 reports itself as ``1.13.0a0+gitunknown``.

        Returns:
            None if the package is not installed or its version is not valid.
        """
        try:
            return Version(Version(self.packages[canonicalize_name(package)]).base_version)
        except (KeyError, InvalidVersion):
            return None

    def meets(self, *alternatives: Sequence[str]) -> Verdict:
        """Compare sets of PEP 508 requirements with the installed packages.

        Args:
            alternatives: sets such as ``("torch>=2.0", "optimum<2")``; meeting every requirement
                of any one set is enough.

        Returns:
            A no with the unmet requirements of each set.
        """
        unmet = [self._unmet(requirements) for requirements in alternatives]
        if not alternatives or not all(unmet):
            return Verdict.yes()
        return Verdict.no(
            "; or ".join(" and ".join(reasons) for reasons in unmet),
            "Run: " + ", or: ".join(_pip_install(wanted) for wanted in alternatives),
        )

    def _unmet(self, requirements: Sequence[str]) -> list[str]:
        reasons = []
        for text in requirements:
            requirement = Requirement(text)
            version = self.version(requirement.name)
            if version is None:
                reasons.append(f"{requirement.name} is not installed")
                continue
            unmet = [s for s in requirement.specifier if not s.contains(version, prereleases=True)]
            if unmet:
                have = self.packages[canonicalize_name(requirement.name)]
                needed = ",".join(map(str, unmet))
                reasons.append(f"{requirement.name} {have} is installed, {needed} is needed")
        return reasons

    def bf16(self) -> Verdict:
        """Check whether bfloat16 is fast here: emulated, it is many times slower."""
        native = bool(self.isa & NATIVE_BF16)
        # With native flags a slow probe means a busy machine rather than emulation, which costs a
        # factor of ten. Without them the probe must prove that bfloat16 is fast.
        if self.bf16_speed >= (0.5 if native else 1.0):
            return Verdict.yes()
        flags = ", ".join(sorted(self.isa & NATIVE_BF16)) or "no bf16 flag"
        return Verdict.no(
            f"bfloat16 matrix products run at {self.bf16_speed:.2f} times float32's speed on this "
            f"processor ({flags}; torch dispatches to {self.torch_isa})",
            "Use dtype=float32 here, or a processor with AVX512-BF16, AMX or Arm's BF16",
        )

    def to_dict(self) -> dict[str, object]:
        """Return the facts as JSON-compatible data."""
        return {**asdict(self), "isa": sorted(self.isa), "packages": dict(self.packages)}


@functools.cache
def host() -> Host:
    """Return the facts of this machine and environment, read once per process."""
    return Host.detect()


def torch_isa() -> str:
    """Return the vector instructions that torch's own kernels dispatch to."""
    if hasattr(torch.backends, "cpu"):  # from torch 2.0 on
        return torch.backends.cpu.get_cpu_capability()
    for line in torch.__config__.show().splitlines():
        _, _, capability = line.partition("CPU capability usage:")
        if capability:
            return capability.strip()
    return "unknown"


def usable_cores(filesystem: Path = Path("/")) -> int:
    """Count the cores this process may use, by its affinity and its control group's quota."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # absent on macOS
        allowed = len(process.cpu_affinity() or ())
    else:
        allowed = os.cpu_count() or 1
    quota = _cgroup_quota(filesystem / "sys/fs/cgroup")
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _cgroup_quota(cgroup: Path) -> float | None:
    """Read how many CPUs the control group may use; None for no limit."""
    version_1, version_2 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"), ("cpu.max",)
    for names in (version_2, version_1):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return None if quota in {"max", "-1"} else float(quota) / float(period)
    return None


def _bf16_speed(size: int = 512, repeats: int = 15) -> float:
    """Time float32 and bfloat16 products of ``size`` x ``size`` matrices alternately."""
    matrices = {
        name: torch.ones(size, size, dtype=getattr(torch, name)) for name in ("float32", "bfloat16")
    }
    products = {name: functools.partial(torch.mm, m, m) for name, m in matrices.items()}
    times = interleave(products, rounds=repeats, rest=0.0)
    # The fastest of each: on a busy machine the medians' ratio varies from call to call.
    return min(times["float32"]) / min(times["bfloat16"])


def _installed_packages() -> dict[str, str]:
    packages: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata  # parsed anew whenever it is read
        name, version = metadata["Name"], metadata["Version"]
        if name and version:  # a half-removed distribution has neither
            packages.setdefault(canonicalize_name(name), version)
    return packages


def _pip_install(requirements: Sequence[str]) -> str:
    return " ".join(["pip install", *(f'"{requirement}"' for requirement in requirements)])
