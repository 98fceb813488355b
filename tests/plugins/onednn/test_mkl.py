"""Linears by MKL: correct for any number of rows, and their weights can be restored."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import cpuaccel
from cpuaccel_plugins.aten_graph.capture import capture
from cpuaccel_plugins.aten_graph.codegen import compile_program
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.onednn.evidence import evidence
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.choice import LinearChoice, MklChoice
from cpuaccel_plugins.onednn.linear.concat import concat_linears
from cpuaccel_plugins.onednn.linear.nodes import Linear, LinearFilter
from cpuaccel_plugins.onednn.linear.pack import pack_linears
from cpuaccel_plugins.onednn.linear.pointwise import fuse_linears
from cpuaccel_plugins.onednn.operators import NO_ACTIVATION
from tests.plugins.onednn.graphs import Function, Linears, X
from tests.required import BF16, requires

pytestmark = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="this torch has no MKL"
)


def test_torch_with_mkl_has_the_operator() -> None:
    assert mkl.is_available()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@given(
    rows=st.integers(1, 700),
    inputs=st.integers(1, 200),
    outputs=st.integers(1, 200),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=200)
def test_a_packed_weight_is_right_for_any_number_of_rows(
    rows: int, inputs: int, outputs: int, bias: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=random)
    x = torch.randn(rows, inputs, generator=random)
    added = torch.randn(outputs, generator=random) if bias else None
    packed, shaped = mkl.pack(weight), mkl.shape_of(weight)
    found = mkl.linear(x, packed, shaped, added)
    torch.testing.assert_close(found, functional.linear(x, weight, added), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(768, 768), (768, 3072), (3072, 768)])
def test_a_packed_weight_is_right_for_any_number_of_threads(
    threads: int, size: tuple[int, int]
) -> None:
    weight, bias = torch.randn(size), torch.randn(size[0])
    packed, shaped = mkl.pack(weight), mkl.shape_of(weight)
    torch.set_num_threads(3 - threads)
    for rows in (1, 5, 128, 129, 1000):
        x = torch.randn(rows, size[1])
        expected = functional.linear(x, weight, bias)
        found = mkl.linear(x, packed, shaped, bias)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_inputs_of_any_dimensions_and_strides_and_empty_ones() -> None:
    weight = torch.randn(6, 8)
    packed, shaped = mkl.pack(weight), mkl.shape_of(weight)
    for x in (
        torch.randn(8),
        torch.randn(2, 3, 4, 8),
        torch.randn(4, 8, 3).transpose(1, 2),
        torch.randn(1, 8).expand(5, 8),
        torch.randn(0, 8),
        torch.randn(2, 0, 8),
    ):
        found = mkl.linear(x, packed, shaped, None)
        torch.testing.assert_close(found, functional.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_a_weight_is_restored_exactly() -> None:
    weight = torch.randn(33, 70) * torch.logspace(-30, 30, 70)
    assert torch.equal(mkl.unpack(mkl.pack(weight), mkl.shape_of(weight)), weight)


def joined(x: torch.Tensor, *linears: torch.nn.Module) -> torch.Tensor:
    first, second, _ = (linear(x).transpose(1, 2) for linear in linears)
    product: torch.Tensor = first @ second.transpose(1, 2)
    return product


def everything(program: Program, linear: Linear) -> bool:
    return True


def without_activation(program: Program, linear: Linear) -> bool:
    return linear.activation == NO_ACTIVATION


def built(
    model: torch.nn.Module, prefers_mkl: LinearFilter, x: torch.Tensor = X
) -> tuple[Program, cpuaccel.Evidence]:
    """Run all passes over linears, and compare the outputs with the module's."""
    program = capture(model.eval(), cpuaccel.Signature.from_inputs(model, (x,)))
    accepts = LinearChoice(measure=False).accepts
    pack = partial(pack_linears, prefers_mkl=prefers_mkl)
    concat_linears(program, accepts, pack)
    fuse_linears(program, accepts)
    pack(program)
    run = compile_program(program)
    for given_ in (x, x[:1], x.repeat(2, 3, 1)):
        (found,) = run(x=given_)
        torch.testing.assert_close(found, model(given_), rtol=1e-4, atol=1e-5)
    return program, evidence(program)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, a, b, c: a(x),
        lambda x, a, b, c: functional.gelu(a(x)),
        lambda x, a, b, c: functional.gelu(a(x), approximate="tanh"),
        lambda x, a, b, c: a(x).relu(),
        lambda x, a, b, c: functional.silu(a(x)),
        lambda x, a, b, c: a(x).tanh(),
        lambda x, a, b, c: a(x).sigmoid(),
        lambda x, a, b, c: x + a(x),
        joined,
    ],
    ids=["alone", "gelu", "gelu tanh", "relu", "silu", "tanh", "sigmoid", "add", "joined"],
)
def test_what_was_fused_is_computed_afterwards(function: Function, bias: bool) -> None:
    _, found = built(Linears(function, bias), everything)
    assert found["linears_by_mkl"] == found["packed_weights"] == 1
    # The product of two of the parts is not fused: a quarter of the operations.
    assert found["share_of_flops_fused"] == ("75.0%" if function is joined else "100.0%")
    assert not {name for name in found if name.startswith("linear+")}


def test_a_shared_weight_is_packed_for_one_engine() -> None:
    def shared(x: torch.Tensor, a: torch.nn.Module, b: torch.nn.Module, _: object) -> torch.Tensor:
        twice: torch.Tensor = a(functional.gelu(a(x)))
        return twice

    _, found = built(Linears(shared), without_activation)
    assert "linears_by_mkl" not in found
    _, found = built(Linears(shared), everything)
    assert (found["linears_by_mkl"], found["packed_weights"]) == (2, 1)


@requires(BF16)
def test_bfloat16_stays_on_onednn() -> None:
    model = Linears(lambda x, a, b, c: a(x)).bfloat16()
    program = capture(model.eval(), cpuaccel.Signature.from_inputs(model, (X.bfloat16(),)))
    fuse_linears(program, LinearChoice(measure=False).accepts)
    pack_linears(program, everything)
    assert "linears_by_mkl" not in evidence(program)


@pytest.mark.parametrize("function", [lambda x, a, b, c: a(x), joined], ids=["alone", "joined"])
def test_without_measuring_onednn_computes_all(function: Function) -> None:
    _, found = built(Linears(function), MklChoice(measure=False).prefers_mkl)
    assert "linears_by_mkl" not in found


def test_each_kind_of_linear_is_measured_once() -> None:
    choice = MklChoice()
    model = Linears(lambda x, a, b, c: functional.gelu(c(b(a(x)))) + x)
    _, found = built(model, choice.prefers_mkl)
    times = choice.engines.times
    assert sorted(kind.activation.name for kind in times) == ["gelu", "none"]
    by_mkl = [kind for kind in times if choice.engines.fastest(kind) == "mkl"]
    assert found.get("linears_by_mkl", 0) == sum(
        2 - kind.activation.name.count("g") for kind in by_mkl
    )
