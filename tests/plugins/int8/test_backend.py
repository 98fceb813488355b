"""The verdicts of ``int8`` on hosts, which linears it computes in 8 bits, and that it does."""

import os
import re
import subprocess
import sys
from typing import Any, ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.outputs import assert_same_output
from tests.models import batch, encoder, left, right, unpadded
from tests.patience import stretched
from tests.plugins.int8.host import BACKEND, needs_engine
from tests.required import INT8, requires, unmet

EVERYTHING = cpuaccel.Step("int8", measure=False)


class TestContractOnBert(BackendContract):
    backend = "int8"
    options: ClassVar[dict[str, Any]] = {"measure": False}
    needs: ClassVar[dict[str, bool]] = {"AVX512-VNNI or AMX-INT8": not unmet((INT8,))}

    def model(self) -> torch.nn.Module:
        return encoder("bert-qa", num_hidden_layers=1)


VNNI = frozenset({"avx512f", "avx512_vnni"})


def check(**host: Any) -> cpuaccel.Verdict:
    return BACKEND(BACKEND.Options()).check(fake_host(**host))


def test_processors_without_fast_8_bit_products_are_refused() -> None:
    verdict = check(isa=frozenset({"avx2", "avx512f"}))
    assert str(verdict) == (
        "the processor (a fake processor) has neither AVX512-VNNI nor AMX-INT8, without which "
        "8 bit products are inexact and no faster than float32. Use onednn, or a processor with "
        "one of them (generate works on any processor)"
    )
    assert check(isa=VNNI)
    assert check(isa=frozenset({"amx_int8"}))


def test_an_older_torch_is_refused() -> None:
    verdict = check(isa=VNNI, packages={"torch": "2.7.1"})
    assert verdict.reason == "torch 2.7.1 is installed, >=2.8 is needed"


@needs_engine
@pytest.mark.parametrize(
    ("name", "linears", "products", "head"),
    [
        ("bert-qa", 12, 8, "qa_outputs"),
        ("roberta-token", 12, 8, "classifier"),
        ("distilbert-text", 13, 9, "classifier"),
        ("vit", 12, 8, "classifier"),
        ("wav2vec2", 13, 9, "lm_head"),
    ],
)
def test_architectures(name: str, linears: int, products: int, head: str) -> None:
    model = encoder(name)
    fast = cpuaccel.optimize(
        model, [EVERYTHING], example_inputs=batch(name, 2, 24, right), strict=True
    )
    evidence = fast.report.outcomes[0].evidence
    assert evidence["int8_linears"] == linears
    assert evidence["int8_products"] == evidence["int8_inputs"] == products
    assert evidence["in_float"] == f"1 kind head: {head}"
    for size, length, pad in [(1, 24, unpadded), (5, 31, right), (3, 20, left)]:
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        assert_same_output(fast(**inputs), expected, inputs, BACKEND.tolerance)
    assert set(fast.report.calls) == {"optimized"}, fast.report
    assert not fast.variants[0].domain.frozen


@needs_engine
@requires("transformers>=5")  # optimum's layers can't be exported
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_after_bettertransformer_only_real_tokens_are_computed(dtype: str) -> None:
    if dtype == "bfloat16" and not (verdict := cpuaccel.host().bf16()):
        pytest.skip(str(verdict))
    model = encoder("bert-token")
    fast = cpuaccel.optimize(
        model,
        ["bettertransformer", EVERYTHING],
        example_inputs=batch("bert-token", 2, 24, right),
        dtype=dtype,
        strict=True,
    )
    evidence = fast.report.outcomes[-1].evidence
    assert evidence["int8_products"] == 8
    assert "padding_computed" not in evidence
    for size, length, pad in [(1, 24, unpadded), (5, 31, right), (3, 20, left)]:
        inputs = batch("bert-token", size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        assert_same_output(fast(**inputs), expected, inputs, BACKEND.tolerance)
    assert set(fast.report.calls) == {"optimized"}, fast.report


@needs_engine
def test_outputs_differ_from_those_in_float() -> None:
    model, inputs = encoder("bert-qa"), batch("bert-qa", 2, 24, right)
    fast = cpuaccel.optimize(model, [EVERYTHING], example_inputs=inputs, strict=True)
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.tolerance == BACKEND.tolerance
    assert fidelity.worst is not None
    assert fidelity.worst.relative > 1e-5  # in float32 it is near 1e-7


PROGRAM = """
import torch, cpuaccel
from tests.models import batch, encoder, right
torch.set_num_threads(1)
model, inputs = encoder("bert-qa"), batch("bert-qa", 2, 24, right)
step = cpuaccel.Step("int8", measure=False)
fast = cpuaccel.optimize(model, [step], example_inputs=inputs)
print(fast.report.outcomes[0], flush=True)
print("CALL", flush=True)
if fast.report.applied:
    fast(**inputs)
"""


def run(**environment: str) -> tuple[str, str]:
    """What a process prints about the step, and what oneDNN prints about the call."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=stretched(200),
        check=True,
    )
    before, _, after = done.stdout.partition("CALL")
    return before, after


@needs_engine
def test_onednn_uses_its_fast_kernel() -> None:
    _, call = run(ONEDNN_VERBOSE="1")
    products = re.findall(r"exec,cpu,matmul,(\S+?),undef,src:u8:\S* wei:s8", call)
    assert len(products) == 8
    assert all(kernel.startswith("brg") for kernel in products), products


@needs_engine
@pytest.mark.skipif(cpuaccel.host().machine != "x86_64", reason="the limit is one of x86")
def test_saturation_without_vnni_is_noticed() -> None:
    printed, _ = run(ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    assert "int8: failed. oneDNN's 8 bit products saturate here" in printed
    assert "Check whether ONEDNN_MAX_CPU_ISA is set, or use onednn." in printed


@needs_engine
def test_inputs_that_are_not_finite_fall_back_to_the_original() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    inputs = torch.randn(3, 8)
    fast = cpuaccel.optimize(model.eval(), [EVERYTHING], example_inputs=inputs)
    assert fast.report.applied == ("int8",)
    broken = inputs.clone()
    broken[1, 2] = float("nan")
    with torch.no_grad():
        torch.testing.assert_close(fast(broken), model(broken), equal_nan=True)
    assert fast.report.calls == {"fallback:error": 1}


def outcome(model: torch.nn.Module, **options: Any) -> cpuaccel.Outcome:
    fast = cpuaccel.optimize(
        model,
        [cpuaccel.Step("int8", measure=False, **options)],
        example_inputs=batch("bert-qa", 2, 24, right),
    )
    return fast.report.outcomes[0]


@needs_engine
def test_linears_are_left_in_float_by_name() -> None:
    evidence = outcome(
        encoder("bert-qa"), float_names=("*.0.*.query", r"re:layer\.1\.output\.dense$")
    ).evidence
    assert evidence["int8_linears"] == 10
    assert evidence["in_float"] == (
        "1 kind head: qa_outputs; 2 by name: bert.encoder.layer.0.attention.self.query, "
        "bert.encoder.layer.1.output.dense"
    )
    assert evidence["concat linear"] == 2  # key and value still share one product


@needs_engine
def test_with_all_linears_in_float_it_is_skipped() -> None:
    skipped = outcome(encoder("bert-qa"), float_names=("*",))
    assert skipped.status == "skipped"
    assert skipped.reason == ("no linear is left to compute in 8 bits (1 kind head, 12 by name)")
