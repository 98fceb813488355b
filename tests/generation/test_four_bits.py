"""Weights in 4 bits: what is stored, what is computed with it, and that nobody gets it unasked."""

from typing import Any

import pytest
import torch
from torch.nn.functional import linear

import cpuaccel
from cpuaccel.report import Status
from cpuaccel_plugins.decoding import library
from cpuaccel_plugins.decoding.linear import MOST_ROWS
from cpuaccel_plugins.decoding.packed import Int4Linear
from tests.generation.models import decoder, prompt, tokens_of

GROUP = 32
PRECISE_ROWS = 4
"""Up to as many rows have activations in 16 bits."""
ALL = ("*",)

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def packed(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Int4Linear:
    """Pack a weight of shape (outputs, inputs)."""
    outputs, inputs = weight.shape
    original = torch.nn.Linear(inputs, outputs, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        original.weight.copy_(weight)
        if bias is not None:
            original.bias.copy_(bias)
    return Int4Linear(original, library.kernels())


def stored(packed: Int4Linear) -> torch.Tensor:
    """The weight that is stored, in float32."""
    return packed.unpacked(0, packed.out_features, torch.float32)


@dtypes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (64, 1), (100, 33), (576, 17), (1024, 8)])
@torch.no_grad()
def test_few_and_many_rows(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
    """Both give what the stored weight gives, but for activations of 8 bits, or 16."""
    added = torch.randn(outputs).to(dtype) if bias else None
    few = packed(torch.randn(outputs, inputs).to(dtype), added)
    exact = stored(few)
    precision = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for rows in (*range(1, MOST_ROWS + 2), 70):
        x = torch.randn(rows, inputs, dtype=dtype)
        expected = linear(x.float(), exact, None if added is None else added.float())
        rounding = exact.abs().sum(1) * x.abs().max() / 254
        own = precision * max(1.0, expected.abs().max().item())
        limit = own + rounding
        in_integers = few.many_in_integers(x, 0, outputs)
        in_floats = few.many_in_floats(x, 0, outputs).float()
        assert bool(((in_integers.float() - expected).abs() <= limit).all())
        assert bool(((in_floats - expected).abs() <= limit + rounding).all())  # in bfloat16
        if rows <= PRECISE_ROWS:
            assert bool(((few(x).float() - expected).abs() <= own + rounding / 128).all())
        elif rows <= MOST_ROWS:
            assert torch.equal(few(x), in_integers)


@dtypes
@torch.no_grad()
def test_the_stored_weight_is_close(dtype: torch.dtype) -> None:
    weight = torch.randn(40, 256).to(dtype)
    groups = weight.float().view(-1, GROUP)
    error = (stored(packed(weight)).view(-1, GROUP) - groups).square().mean(1)
    step = (groups.amax(1) - groups.amin(1)) / 15
    assert bool((error <= step.square() / 12 * 2.5).all())  # that of rounding is 1/12 on average
    assert torch.equal(packed(weight).unpacked(16, 6, torch.float32), stored(packed(weight))[16:22])


@torch.no_grad()
def test_what_4_bits_can_hold_is_held_exactly() -> None:
    """Weights on a grid of 16 numbers, as files in 4 bits have them."""
    numbers = torch.randint(0, 16, (8, 4, GROUP))
    numbers[..., 0], numbers[..., 1] = 0, 15
    scales, least = (torch.rand(2, 8, 4, 1) + 0.5).bfloat16().float()
    weight = (numbers * scales - 8 * least.bfloat16().float()).view(8, -1)
    relative = (stored(packed(weight)) - weight).abs().max() / weight.abs().max()
    assert relative < 5e-3  # scales have 8 bits


@torch.no_grad()
def test_extreme_weights() -> None:
    """Groups of zeros, of one number, tiny and huge ones: none of them gives NaN."""
    weight = torch.randn(6, 128)
    for row, factor in enumerate((0.0, 1e-38, 1e-4, 1e20, 1e35)):
        weight[row] *= factor
    weight[5] = 0.75
    found = stored(packed(weight))
    assert bool(found.isfinite().all())
    assert bool((found[0] == 0).all())
    assert torch.equal(found[5], weight[5])
    scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-37)
    assert bool(((found - weight).abs() / scale)[2:].le(0.15).all())


@torch.no_grad()
def test_values_that_are_not_finite_are_passed_on() -> None:
    few = packed(torch.randn(5, 192))
    for value in (float("nan"), float("inf")):
        for place in (4, 191):
            x = torch.randn(3, 192)
            x[1, place] = value
            assert few(x).isfinite().all(1).tolist() == [True, False, True]


@torch.no_grad()
def test_rows_do_not_depend_on_each_other() -> None:
    few = packed(torch.randn(24, 320))
    x = torch.randn(7, 320)
    together = few(x)
    precise = few(x[:PRECISE_ROWS])
    for row in range(len(x)):
        changed = torch.randn(7, 320)
        changed[row] = x[row]
        assert torch.allclose(few(changed)[row], together[row], atol=1e-5)
        if row < PRECISE_ROWS:
            assert torch.allclose(few(x[row : row + 1])[0], precise[row], atol=1e-5)
    assert torch.allclose(few.outputs(x, 5, 9), together[:, 5:14], atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "mixtral", "qwen3_moe"])
def test_models(name: str) -> None:
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, [cpuaccel.Step("int8", int4_names=ALL)])
    inputs = prompt()
    call = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": 4}
    output = fast.generate(**inputs, **call, do_sample=False)
    with torch.no_grad():
        expected = model(output.sequences, use_cache=False).logits[:, -5:-1]
    found = torch.stack(output.logits, 1)
    assert (found - expected).norm() <= 0.3 * expected.norm()
    assert fast.report.calls == {"optimized": 1}
    in_8_bits: Any = cpuaccel.optimize(model, ["int8"])
    tokens_of(in_8_bits, inputs)
    bytes_in_8_bits = in_8_bits.report.generation.stepper.bytes_per_step
    assert fast.report.generation.stepper.bytes_per_step < 0.75 * bytes_in_8_bits


def test_only_the_linears_that_are_named() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, [cpuaccel.Step("int8", int4_names=("*.mlp.*",))])
    fast.prepare_generation()
    stepper = fast.report.generation.stepper.forward
    kinds = {name: type(module).__name__ for name, module in stepper.named_modules()}
    assert kinds["model.layers.0.mlp.up_proj"] == "Int4Linear"
    assert kinds["model.layers.0.self_attn.q_proj"] == "Int8Linear"
    assert kinds["lm_head"] == "Int8Linear"


def test_a_name_that_matches_nothing() -> None:
    fast: Any = cpuaccel.optimize(decoder("llama"), [cpuaccel.Step("int8", int4_names=("no.*",))])
    fast.prepare_generation()
    outcome = fast.report.generation.outcome
    assert outcome.status is Status.FAILED
    assert "int4_names has 'no.*', which matches none of the model's 15 linears" in outcome.reason
