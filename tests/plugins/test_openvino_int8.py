"""OpenVINO in 8 bits: what runs in 8 bits, and the samples it is calibrated with."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from tests.models import batch, encoder, right, unpadded
from tests.plugins.engines import FACTS, ForeignRuntimeContract
from tests.required import INT8, requires, unmet

needs_engine = requires(*FACTS["openvino_int8"])

TOLERANCE = 0.6 if unmet((INT8,)) else 0.4
"""Largest difference relative to a tensor's largest magnitude. Logits of random heads are small
compared with the terms that they sum: differences up to 0.31 were measured, and 0.48 without VNNI,
where sums of 8 bit products saturate."""


class TestContract(ForeignRuntimeContract):
    backend = "openvino_int8"
    call = "openvino.convert_model"
    package = "openvino"
    opt_out = "CI"
    architecture_tolerance = TOLERANCE
    nested_tolerance = 0.2
    rows = 16

    def test_products_run_in_8_bits(self, bert_evidence: cpuaccel.Evidence) -> None:
        assert int(bert_evidence["products_in_int8"]) >= 12, "six linears in each of two layers"
        assert bert_evidence["samples"] == 16


def optimized(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], **options: object
) -> cpuaccel.OptimizedModel:
    step = cpuaccel.Step("openvino_int8", **options)
    return cpuaccel.optimize(model, [step], example_inputs=inputs, strict=True, tolerance=TOLERANCE)


@needs_engine
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    optimized(encoder("bert-token"), batch("bert-token", 3, 24, right))
    assert capfd.readouterr().out == ""


@needs_engine
def test_calibration_is_read_from_a_file(tmp_path: Path) -> None:
    torch_file = pytest.importorskip("safetensors.torch")
    file = tmp_path / "samples.safetensors"
    torch_file.save_file(batch("bert-token", 7, 24, right), file)
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, unpadded)
    fast = optimized(model, inputs, calibration=file)
    assert fast.report.outcomes[0].evidence["samples"] == 7


@needs_engine
def test_an_invalid_calibration_file(tmp_path: Path) -> None:
    torch_file = pytest.importorskip("safetensors.torch")
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, unpadded)
    wrong, torn = tmp_path / "wrong.safetensors", tmp_path / "torn.safetensors"
    torch_file.save_file({"input_ids": inputs["input_ids"]}, wrong)
    torn.write_bytes(b"no tensors")
    for file, reason in (
        (tmp_path / "missing", "missing'"),
        (torn, "torn.safetensors'"),
        (wrong, "wrong.safetensors' has input_ids in int64, but the inputs are input_"),
    ):
        with pytest.raises(cpuaccel.StepError) as caught:
            optimized(model, inputs, calibration=file)
        assert reason in str(caught.value)
        assert "Write it with safetensors.torch.save_file" in str(caught.value)


@needs_engine
def test_a_model_without_matrix_products_fails() -> None:
    with pytest.raises(cpuaccel.StepError, match="no matrix product of Tanh runs in 8 bits"):
        optimized(torch.nn.Tanh().eval(), {"input": torch.ones(2, 2)})


@needs_engine
def test_values_that_it_was_not_calibrated_for() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    example = torch.rand(16, 64)
    example[0, 0] = 1.0
    fast = cpuaccel.optimize(
        model.eval(), ["openvino_int8"], example_inputs=example, tolerance=TOLERANCE
    )
    assert "input from -0.1 to 1.1" in fast.report.variants[0].domain
    with torch.no_grad():
        fast(1.05 * example)
        assert fast.report.calls == {"optimized": 1}
        for wrong in (
            3 * example,
            -example,
            example.log() / 0,
            torch.full_like(example, torch.nan),
        ):
            torch.testing.assert_close(fast(wrong), model(wrong), rtol=0, atol=0, equal_nan=True)
    assert fast.report.calls == {"optimized": 1, "fallback:values": 4}
    assert fast.report.fallbacks["fallback:values"].startswith(
        "input has values outside of -0.1 to"
    )


@needs_engine
def test_strict_and_values_that_it_was_not_calibrated_for() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU()).eval()
    fast = optimized(model, {"input": torch.rand(16, 64)})
    with pytest.raises(cpuaccel.StepError, match="input has values outside of"):
        fast(input=torch.full((16, 64), 3.0))


@needs_engine
def test_samples_that_prove_nothing_about_other_values() -> None:
    """In the samples neighbours differ little; what follows their difference is calibrated so."""

    class Differences(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(31, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.project(x[:, 1:] - x[:, :-1])

    smooth = torch.linspace(-1, 1, 32).expand(16, 32) + torch.rand(16, 1)
    with pytest.raises(cpuaccel.StepError, match="it is wrong for other values"):
        optimized(Differences().eval(), {"x": smooth})
