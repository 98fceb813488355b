"""Inductor for real, where there is a compiler, and its verdicts everywhere."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.answers import assert_same_answer
from cpuaccel.testing.state import changed, global_state
from tests.plugins.encoders import batch, both, encoder, left, right, unpadded


def verdict_on(host: cpuaccel.Host) -> cpuaccel.Verdict:
    backend = cpuaccel.backends()["inductor"]
    return backend(backend.Options()).check(host)


HERE = verdict_on(cpuaccel.host())
real = pytest.mark.skipif(not HERE, reason=str(HERE))


class TestContract(BackendContract):
    backend = "inductor"


@real
@pytest.mark.parametrize("name", ["bert-qa", "roberta-text", "distilbert-token", "vit", "wav2vec2"])
def test_answers_are_the_originals_at_unseen_shapes_and_paddings(name: str) -> None:
    model = encoder(name)
    before = global_state()
    fast = cpuaccel.optimize(
        model, ["inductor"], example_inputs=batch(name, 2, 24, right), strict=True
    )
    assert fast.report.applied == ("inductor",)
    for size, length, pad in [
        (1, 24, unpadded),
        (1, 17, right),
        (5, 31, right),
        (3, 20, left),
        (4, 12, both),
    ]:
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        assert_same_answer(fast(**inputs), expected, inputs)
    assert len(fast.report.variants) == 1
    assert set(fast.report.calls) == {"optimized"}, fast.report
    evidence = fast.report.outcomes[0].evidence
    assert evidence["compilations"] == 2, "one graph for a row, one for several"
    assert evidence["recompilations"] == 0
    assert int(evidence["packed_linears"]) >= 12
    assert changed(before, global_state()) == []


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 6:
            x = x * 2
        answer: torch.Tensor = self.linear(x)
        return answer


@real
def test_a_recompilation_is_frozen_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    model = Branches().eval()
    fast = cpuaccel.optimize(model, ["inductor"], example_inputs=torch.ones(2, 6, 5), strict=True)
    evidence = fast.report.outcomes[0].evidence
    compilations = int(evidence["compilations"])
    assert evidence["recompilations"] == 0
    x = torch.randn(2, 9, 5)
    with torch.no_grad():
        expected = model(x)
    for _ in range(2):
        assert_same_answer(fast(x), expected, {})
    assert evidence["recompilations"] == 1
    assert evidence["compilations"] == compilations + 1
    assert evidence["frozen_weights"] == 2
    assert "recompilations 1" in str(fast.report)
    assert len([m for m in caplog.messages if m.startswith("inductor compiled the model aga")]) == 1


class Printing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + 1


@real
def test_a_graph_break_is_refused() -> None:
    fast = cpuaccel.optimize(Printing().eval(), ["inductor"], example_inputs=torch.ones(2, 2))
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason.startswith("torch.compile can't take Printing as one graph: ")
    assert outcome.remedy == "Leave inductor out for this model"


@real
def test_torch_compile_switched_off_is_no_success() -> None:
    torch.compiler.set_stance("force_eager")
    try:
        fast = cpuaccel.optimize(
            torch.nn.Linear(2, 2).eval(), ["inductor"], example_inputs=torch.ones(2, 2)
        )
    finally:
        torch.compiler.set_stance("default")
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason == (
        "torch.compile ran the model eagerly: it is switched off in this process"
    )


@real
def test_without_a_compiler_strict_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(torch.nn.Linear(2, 2), ["inductor"], strict=True)
    assert (
        "inductor: Inductor compiles C++ kernels, and there is no g++ on this PATH. Install a C++ "
        "compiler (on Debian: apt install g++), or name one in CXX"
    ) in str(caught.value)


def test_an_older_torch_is_refused() -> None:
    verdict = verdict_on(fake_host(packages={"torch": "2.8.0"}))
    assert verdict.reason == "torch 2.8.0 is installed, >=2.13 is needed"


OPENVINO = cpuaccel.host().meets(("openvino>=2026.4",))


@real
@pytest.mark.skipif(not OPENVINO, reason=str(OPENVINO))
def test_one_engine_after_the_other_leaves_torch_as_it_was() -> None:
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, right)
    with torch.no_grad():
        expected = model(**inputs).logits
    before = global_state()
    for engine in ("openvino", "inductor"):
        fast = cpuaccel.optimize(model, [engine], example_inputs=inputs, strict=True)
        torch.testing.assert_close(fast(**inputs).logits, expected)
        assert changed(before, global_state()) == []
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits, expected)
