"""Inductor: recompilation, graph breaks and its compiler."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_same_output
from tests.conftest import Python
from tests.plugins.engines import FACTS, TorchCompileContract
from tests.required import requires

needs_engine = requires(*FACTS["inductor"])


class TestContract(TorchCompileContract):
    backend = "inductor"

    def check_evidence(self, evidence: cpuaccel.Evidence) -> None:
        super().check_evidence(evidence)
        assert int(evidence["packed_linears"]) >= 6


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 6:
            x = x * 2
        output: torch.Tensor = self.linear(x)
        return output


@needs_engine
def test_a_recompilation_is_frozen_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    model = Branches().eval()
    fast = cpuaccel.optimize(model, ["inductor"], example_inputs=torch.ones(2, 6, 5), strict=True)
    evidence = fast.report.outcomes[0].evidence
    assert evidence["recompilations"] == 1  # for a length of one, when the outputs are compared
    assert evidence["frozen_weights"] == 2
    assert "recompilations 1" in str(fast.report)
    (message,) = [m for m in caplog.messages if m.startswith("inductor: recompiled the model")]
    assert "[2, 1, 5]" in message


@needs_engine
def test_another_path_of_the_code_gets_its_own_variant() -> None:
    model, x = Branches().eval(), torch.randn(2, 9, 5)
    fast = cpuaccel.optimize(model, ["inductor"], example_inputs=torch.ones(2, 6, 5), strict=True)
    with torch.no_grad():
        expected = model(x)
    for _ in range(2):
        assert_same_output(fast(x), expected, {})
    assert len(fast.report.variants) == 2
    assert fast.report.calls == {"optimized": 2}


class Printing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + 1


@needs_engine
def test_a_graph_break_is_refused() -> None:
    fast = cpuaccel.optimize(Printing().eval(), ["inductor"], example_inputs=torch.ones(2, 2))
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason.startswith("torch.compile failed on Printing: ")
    assert outcome.remedy == "Leave inductor out for this model"


@needs_engine
def test_torch_compile_disabled_is_a_failure() -> None:
    torch.compiler.set_stance("force_eager")
    try:
        fast = cpuaccel.optimize(
            torch.nn.Linear(2, 2).eval(), ["inductor"], example_inputs=torch.ones(2, 2)
        )
    finally:
        torch.compiler.set_stance("default")
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason == ("torch.compile ran the model eagerly: it is disabled in this process")


@needs_engine
def test_without_a_compiler_strict_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(torch.nn.Linear(2, 2), ["inductor"], strict=True)
    assert "inductor: Inductor compiles C++ kernels, but g++ is not on PATH" in str(caught.value)


CACHED = """
import torch
import cpuaccel
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.LayerNorm(8)).eval()
cpuaccel.optimize(model, ["inductor"], example_inputs=torch.ones(2, 8), strict=True)
"""


@needs_engine
def test_a_later_process_loads_what_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Python
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def kernels() -> set[tuple[Path, int]]:
        python(CACHED)
        return {(path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.so")}

    compiled = kernels()
    assert compiled
    assert kernels() == compiled, "the second process has compiled nothing"
