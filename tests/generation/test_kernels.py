"""The kernels compute what torch computes, for all sizes; without a compiler they are left out."""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

import cpuaccel
from cpuaccel.report import Status
from cpuaccel_plugins.decoding import library
from cpuaccel_plugins.decoding.linear import MOST_ROWS, FewRowsLinear
from cpuaccel_plugins.decoding.packed import Int8Linear
from tests.generation.models import assert_falls_back, assert_served, decoder, left_padded

SIZES = [(1, 1), (7, 13), (33, 100), (16, 32), (17, 8), (100, 33), (64, 129)]
"""Inputs and outputs; most are no multiples of a vector's length or of a block."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
LEAST_STEPS = 254
"""Activations in 8 bits are off by this part of the largest near them, at most."""

PRECISE_ROWS = 4
"""Up to as many rows have activations in 16 bits."""

DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bf16"])


def each_linear(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test for each dtype and size, with a bias and without one."""
    biases = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    sizes = pytest.mark.parametrize(("inputs", "outputs"), SIZES)
    return DTYPES(biases(sizes(test)))  # type: ignore[no-any-return]


def make(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> torch.nn.Linear:
    return torch.nn.Linear(inputs, outputs, bias=bias).to(dtype)


def assert_close(
    found: torch.Tensor, expected: torch.Tensor, rounding: torch.Tensor | float = 0.0
) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if expected.numel():
        limit = TOLERANCE[expected.dtype] * max(1.0, expected.abs().max().item())
        assert bool(((found.float() - expected.float()).abs() <= limit + rounding).all())


@each_linear
@torch.no_grad()
def test_the_weight_as_it_is(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
    original = make(inputs, outputs, bias, dtype)
    few = FewRowsLinear(original, library.kernels())
    for rows in range(MOST_ROWS + 2):
        x = torch.randn(rows, inputs, dtype=dtype)
        assert_close(few(x), original(x))


@each_linear
@torch.no_grad()
def test_the_weight_in_8_bits(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
    """Few and many rows give what the dequantized weight gives, but for narrower activations."""
    original = make(inputs, outputs, bias, dtype)
    before = original.weight.clone()
    quantized = Int8Linear(original, library.kernels())
    exact = quantized.unpacked(0, outputs, torch.float32)
    half_a_step = original.weight.float().abs().amax(1, keepdim=True) / 127 / 2
    assert bool(((exact - original.weight.float()).abs() <= half_a_step * 1.01 + 1e-9).all())
    wide = None if original.bias is None else original.bias.float()
    for rows in (*range(1, MOST_ROWS + 2), 70):
        x = torch.randn(rows, inputs, dtype=dtype)
        expected = linear(x.float(), exact, wide).to(dtype)
        rounding = exact.abs().sum(1) * x.abs().max() / LEAST_STEPS
        in_integers = quantized.many_in_integers(x, 0, outputs)
        assert_close(in_integers, expected, rounding)
        # In bfloat16 weights, activations and outputs are rounded, by up to 1/512.
        assert_close(quantized.many_in_floats(x, 0, outputs), expected, 2 * rounding)
        if rows <= PRECISE_ROWS:
            assert_close(quantized(x), expected, rounding / 128)
        elif rows <= MOST_ROWS:
            assert torch.equal(quantized(x), in_integers)
    assert torch.equal(original.weight, before)


@pytest.mark.parametrize("kind", [FewRowsLinear, Int8Linear])
@torch.no_grad()
def test_inputs_of_any_shape(kind: type[FewRowsLinear]) -> None:
    original = make(24, 10, True, torch.float32)
    few = kind(original, library.kernels())
    inputs = torch.randn(2, 3, 24)
    views = [inputs, inputs[:, ::2], inputs.transpose(0, 1), inputs[0, 0], inputs[:, :0]]
    views += [torch.randn(24, 4).t(), inputs.unsqueeze(0), inputs[:1].expand(4, 3, 24)]
    for view in views:
        expected = original(view)
        found = few(view)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("kind", [FewRowsLinear, Int8Linear])
@torch.no_grad()
def test_a_weight_that_is_not_contiguous(kind: type[FewRowsLinear]) -> None:
    original = make(24, 10, True, torch.float32)
    original.weight = torch.nn.Parameter(torch.randn(24, 10).t())
    few = kind(original, library.kernels())
    inputs = torch.randn(3, 24)
    assert torch.allclose(few(inputs), original(inputs), atol=0.1)


@DTYPES
@torch.no_grad()
def test_extreme_weights_in_8_bits(dtype: torch.dtype) -> None:
    """Rows of zeros, tiny and huge ones: none of them gives NaN."""
    original = make(20, 5, False, dtype)
    original.weight.copy_(torch.randn(5, 20))
    for row, factor in enumerate((0.0, 1e-30, 1e-4, 1e20)):
        original.weight[row] *= factor
    quantized = Int8Linear(original, library.kernels())
    inputs = torch.randn(2, 20, dtype=dtype)
    found, expected = quantized(inputs).float(), original(inputs).float()
    assert bool(found.isfinite().all())
    assert bool((found[:, 0] == 0).all())
    scale = expected.abs().amax(0).clamp_min(1e-30)
    assert bool(((found - expected).abs() / scale)[:, 2:].le(0.1).all())


@torch.no_grad()
def test_a_large_activation_blurs_only_those_near_it() -> None:
    """Activations in 8 bits have a scale for each 32 of them."""
    original = make(600, 5, False, torch.float32)
    original.weight[:, :32] = 0
    quantized = Int8Linear(original, library.kernels())
    inputs = torch.randn(1, 600)
    expected = quantized(inputs)
    inputs[0, 3] = 1e6
    assert torch.equal(quantized(inputs), expected)


@torch.no_grad()
def test_nan_and_infinity_are_passed_on() -> None:
    original = make(20, 5, True, torch.float32)
    few = FewRowsLinear(original, library.kernels())
    for value in (float("nan"), float("inf")):
        inputs = torch.randn(3, 20)
        inputs[1, 4] = value
        found, expected = few(inputs), original(inputs)
        assert torch.equal(found.isfinite(), expected.isfinite())
        assert torch.equal(found.isnan(), expected.isnan())


@DTYPES
@pytest.mark.parametrize("kind", [FewRowsLinear, Int8Linear])
@torch.no_grad()
def test_no_value_hides_one_that_is_not_finite(
    kind: type[FewRowsLinear], dtype: torch.dtype
) -> None:
    original = make(300, 5, True, dtype)
    few = kind(original, library.kernels())
    for value in (float("nan"), float("inf"), -float("inf")):
        for place in (4, 299):
            inputs = torch.randn(3, 300, dtype=dtype)
            inputs[1, place] = value
            assert torch.equal(few(inputs).isfinite(), original(inputs).isfinite())


def test_the_weight_is_shared() -> None:
    original = make(24, 10, True, torch.float32)
    few = FewRowsLinear(original, library.kernels())
    assert few.weight.data_ptr() == original.weight.data_ptr()
    assert few.described.weight == original.weight.data_ptr()


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process in which the kernels were never compiled."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CPUACCEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.kernels.cache_clear()
    yield
    library.kernels.cache_clear()


def assert_skipped(backend: str, reason: str) -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, [backend])
    assert_falls_back(fast, model, left_padded(), reason)
    outcome = fast.report.generation.outcome
    assert outcome.status is Status.SKIPPED
    assert reason in outcome.reason
    assert "CXX" in outcome.remedy


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("backend", ["onednn", "int8"])
def test_without_a_compiler(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which

    def without_compilers(name: str, *args: Any, **kwargs: Any) -> str | None:
        return None if name.endswith("++") else which(name, *args, **kwargs)

    monkeypatch.setattr(shutil, "which", without_compilers)
    assert_skipped(backend, "there is no C++ compiler")


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler"])
def test_a_compiler_that_fails(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert_skipped("onednn", compiler)


@pytest.mark.usefixtures("uncompiled")
def test_a_compiler_that_writes_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing broken stays behind: with a compiler that works the kernels are used."""
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo nonsense > "$2"\n')
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    assert_skipped("onednn", "can't be loaded")


@pytest.mark.usefixtures("uncompiled")
def test_a_folder_that_can_not_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert_skipped("onednn", "can't compile")


def test_the_kernels_are_loaded_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    failing = functools.partial(_fail, "no kernels today")
    with monkeypatch.context() as patch:
        patch.setattr("cpuaccel_plugins.decoding.model.kernels", failing)
        assert_falls_back(fast, model, left_padded(), "no kernels today")
    fast.refresh()
    assert_served(fast, model, left_padded())


def _fail(reason: str) -> None:
    raise library.KernelsError(reason)
