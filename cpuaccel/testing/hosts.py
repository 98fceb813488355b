"""Fake hosts: machines and environments other than the one the tests run on."""

from collections.abc import Mapping
from typing import Any

import cpuaccel


def fake_host(**changes: Any) -> cpuaccel.Host:
    """Make a host: an x86 server with AVX512 and native bfloat16, except for ``changes``.

    Example:

        fake_host(isa=frozenset({"avx2"}), torch_isa="AVX2", bf16_speed=0.1)
        fake_host(packages={"torch": "1.13.0a0+gitunknown"})

    Args:
        **changes: attributes of ``Host``.
    """
    defaults: Mapping[str, Any] = {
        "machine": "x86_64",
        "processor": "a fake processor",
        "microarchitecture": "sapphirerapids",
        "isa": frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "torch_isa": "AVX512",
        "cores": 4,
        "threads": 4,
        "memory": 16 * 2**30,
        "bf16_speed": 4.0,
        "python": "3.11.7",
        "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
    }
    return cpuaccel.Host(**{**defaults, **changes})


ODD_HOSTS: Mapping[str, cpuaccel.Host] = {
    "nothing installed": fake_host(packages={}),
    "unreadable versions": fake_host(
        packages=dict.fromkeys(("torch", "transformers", "optimum"), "not a version")
    ),
    "Debian's torch": fake_host(packages={"torch": "1.13.0a0+gitunknown"}),
    "an old environment": fake_host(packages={"torch": "0.4", "transformers": "2.0"}),
    "a future environment": fake_host(
        python="4.0.0a1", packages={"torch": "99.0.dev20990101+cpu", "transformers": "99"}
    ),
    "an old processor": fake_host(
        isa=frozenset({"sse2"}), torch_isa="DEFAULT", microarchitecture="nocona", bf16_speed=0.02
    ),
    "another architecture": fake_host(
        machine="riscv64", isa=frozenset(), torch_isa="unknown", microarchitecture="u74mc"
    ),
    "one core": fake_host(cores=1, threads=1, memory=2**28),
}
"""Unusual hosts, for which ``check`` must still return a verdict."""
