import pytest

import cpuaccel
from tests.required import unmet

# The cache layers that generation works on are those of Transformers 5.
collect_ignore_glob = ["test_*.py"] if unmet(("torch>=2.6", "transformers>=5")) else []


@pytest.fixture
def any_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pipelines cast to bfloat16 on any processor: the kernels compute it on all."""
    monkeypatch.setattr(cpuaccel.Host, "bf16", lambda _: cpuaccel.Verdict.yes())


@pytest.fixture(autouse=True)
def _quick_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read little memory to measure the bandwidth, which no test asserts on."""
    if not collect_ignore_glob:
        monkeypatch.setattr("cpuaccel.generation.meter.PROBE_BYTES", 2**16)
