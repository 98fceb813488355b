"""OpenVINO in 8 bits for real, quantized by the real NNCF, where both are installed."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from tests.models import batch, encoder, right, unpadded
from tests.plugins.engines import (
    ARCHITECTURES,
    assert_originals_answers_at_unseen_shapes,
    needs,
    verdict_on,
)

real = needs("openvino_int8")
TOLERANCE = 0.4
"""Of a tensor's largest magnitude. Logits of random heads are small against what they are sums of,
and so is their magnitude against the error of 8 bits: up to 0.31 was seen."""


class TestContract(BackendContract):
    backend = "openvino_int8"


def optimized(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], **options: object
) -> cpuaccel.OptimizedModel:
    step = cpuaccel.Step("openvino_int8", **options)
    return cpuaccel.optimize(model, [step], example_inputs=inputs, strict=True, tolerance=TOLERANCE)


@real
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_near_the_originals_at_unseen_shapes_and_paddings(name: str) -> None:
    model = encoder(name)
    fast = optimized(model, batch(name, 16, 24, right))
    assert_originals_answers_at_unseen_shapes(fast, model, name, TOLERANCE)


@real
def test_products_run_in_8_bits_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    fast = optimized(encoder("bert-qa"), batch("bert-qa", 3, 24, right))
    evidence = fast.report.outcomes[0].evidence
    assert int(evidence["products_in_int8"]) >= 12, "six linears in each of two layers"
    assert evidence["samples"] == 3
    assert capfd.readouterr().out == ""


def test_after_bettertransformer_it_is_refused() -> None:
    with pytest.raises(cpuaccel.PipelineError, match="NNCF does not follow what removes padding"):
        cpuaccel.explain(encoder("bert-token"), ["bettertransformer", "openvino_int8"])


@real
def test_calibration_is_read_from_a_file(tmp_path: Path) -> None:
    torch_file = pytest.importorskip("safetensors.torch")
    file = tmp_path / "samples.safetensors"
    torch_file.save_file(batch("bert-token", 7, 24, right), file)
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, unpadded)
    fast = optimized(model, inputs, calibration=file)
    assert fast.report.outcomes[0].evidence["samples"] == 7


@real
def test_a_calibration_file_that_is_no_good_says_why(tmp_path: Path) -> None:
    torch_file = pytest.importorskip("safetensors.torch")
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, unpadded)
    wrong, torn = tmp_path / "wrong.safetensors", tmp_path / "torn.safetensors"
    torch_file.save_file({"input_ids": inputs["input_ids"]}, wrong)
    torn.write_bytes(b"no tensors")
    for file, reason in (
        (tmp_path / "missing", "missing' can't be read: "),
        (torn, "torn.safetensors' can't be read: "),
        (wrong, "wrong.safetensors' holds input_ids in int64, but the model is called with input_"),
    ):
        with pytest.raises(cpuaccel.StepError) as caught:
            optimized(model, inputs, calibration=file)
        assert reason in str(caught.value)
        assert "Write it with safetensors.torch.save_file" in str(caught.value)


@real
def test_a_model_without_matrix_products_is_no_success() -> None:
    with pytest.raises(cpuaccel.StepError, match="none of Tanh's matrix products in 8 bits"):
        optimized(torch.nn.Tanh().eval(), {"input": torch.ones(2, 2)})


def test_without_nncf_the_verdict_says_what_to_install() -> None:
    host = fake_host(packages={"torch": "2.13.0", "openvino": "2026.4.1"})
    assert str(verdict_on("openvino_int8", host)) == (
        'nncf is not installed. Install "torch>=2.8" and "openvino>=2026.4" and "nncf>=3.4"'
    )
