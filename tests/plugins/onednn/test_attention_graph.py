"""Attention by compiled kernels: their results, for which sizes they are compiled, and when."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as stock

from cpuaccel_plugins.onednn.attention import attend as attend_module
from cpuaccel_plugins.onednn.attention import graph as attention_graph
from cpuaccel_plugins.onednn.attention.attend import (
    GRAPH,
    attend,
    attend_by_graph,
    slice_tokens,
    split_operands,
)
from cpuaccel_plugins.onednn.attention.graph import (
    USES,
    Kernel,
    KernelCache,
    KernelKey,
    compile_kernel,
)
from tests.required import BF16, requires

KEY = KernelKey(1, 6, 2, 4, torch.float32, 0.5, threads=1)
"""Tests run in one thread."""


@pytest.fixture(autouse=True)
def _without_ipex() -> None:
    # In each test: another test may have imported it meanwhile.
    if "intel_extension_for_pytorch" in sys.modules:
        pytest.skip("IPEX replaces what TorchScript does for oneDNN in this process")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> KernelCache:
    """The cache of a process that has compiled nothing yet."""
    fresh = KernelCache()
    monkeypatch.setattr(attend_module, "kernels", fresh)
    return fresh


def joint(key: KernelKey) -> torch.Tensor:
    return torch.randn(key.batch, key.tokens, 3, key.heads, key.size, dtype=key.dtype)


def expected(operands: torch.Tensor, scale: float) -> torch.Tensor:
    query, key, value = split_operands(operands)
    return stock(query, key, value, scale=scale).transpose(1, 2).flatten(2)


def compiled(key: KernelKey) -> Kernel:
    kernel = compile_kernel(key)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 7, 128])
@pytest.mark.parametrize(("heads", "size"), [(1, 8), (12, 64), (5, 3)])
def test_results_are_those_of_the_stock_operator(
    batch: int, tokens: int, heads: int, size: int
) -> None:
    key = KEY._replace(batch=batch, tokens=tokens, heads=heads, size=size, scale=0.3)
    operands = joint(key)
    torch.testing.assert_close(compiled(key)(operands), expected(operands, 0.3))


@requires(BF16)
def test_bfloat16() -> None:
    key = KEY._replace(dtype=torch.bfloat16)
    operands = joint(key)
    torch.testing.assert_close(
        compiled(key)(operands).float(), expected(operands, 0.5).float(), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_kernels_run_in_every_mode(mode: Callable[[], torch.no_grad]) -> None:
    kernel = compiled(KEY)
    with mode():
        operands = joint(KEY)
        torch.testing.assert_close(kernel(operands), expected(operands, 0.5))


def test_kernels_are_compiled_for_frequent_sizes(kernels: KernelCache) -> None:
    for _ in range(USES - 1):
        assert kernels.get(KEY) is None
    first = kernels.get(KEY)
    assert first is not None
    assert kernels.get(KEY) is first
    assert kernels.get(KEY._replace(tokens=5)) is None


def test_results_stay_the_same_when_a_kernel_is_compiled(kernels: KernelCache) -> None:
    operands = joint(KEY)
    for _ in range(2 * USES):
        torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))
    assert kernels.get(KEY) is not None


def test_a_slice_of_a_longer_sequence_has_the_strides_of_the_kernel(kernels: KernelCache) -> None:
    for _ in range(USES):
        kernels.get(KEY)
    several = torch.randn(1, 20, 3, 2, 4)
    own = slice_tokens(several, 3, 9)
    assert isinstance(own, torch.Tensor)
    found = attend_by_graph(own, 0.5)
    assert found is not None
    torch.testing.assert_close(found, expected(several[:, 3:9], 0.5))


def test_operands_with_other_strides_are_computed_by_products(kernels: KernelCache) -> None:
    for _ in range(USES):
        kernels.get(KEY)
    operands = torch.randn(1, 20, 3, 2, 4)[:, 3:9]
    assert attend_by_graph(operands, 0.5) is None
    torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))


def test_each_number_of_threads_has_a_kernel_of_its_own(kernels: KernelCache) -> None:
    operands, before = joint(KEY), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for _ in range(USES):
                attend(operands, None, 0.5, GRAPH)
            torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))
    finally:
        torch.set_num_threads(before)
    assert [key.threads for key in kernels._kernels] == [1, 2]


def test_no_thread_waits_while_another_compiles(kernels: KernelCache) -> None:
    with kernels._compiling:
        for _ in range(2 * USES):
            assert kernels.get(KEY) is None
    assert kernels.get(KEY) is not None


def test_threads_share_kernels(kernels: KernelCache) -> None:
    operands = [joint(KEY) for _ in range(4)]
    results = [expected(one, 0.5) for one in operands]

    def right(place: int) -> bool:
        return all(
            torch.allclose(attend(operands[place], None, 0.5, GRAPH), results[place], atol=1e-5)
            for _ in range(3 * USES)
        )

    with ThreadPoolExecutor(len(operands)) as pool:
        assert list(pool.map(right, range(len(operands)))) == [True] * len(operands)
    assert list(kernels._kernels) == [KEY]


def test_the_number_of_kernels_is_bounded(
    kernels: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_graph, "USES", 1)
    monkeypatch.setattr(attention_graph, "MOST_KERNELS", 2)
    keys = [KEY._replace(tokens=tokens) for tokens in range(1, 5)]
    for _ in range(2):
        assert [kernels.get(key) is None for key in keys] == [False, False, True, True]


def test_the_number_of_counted_sizes_is_bounded(
    kernels: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_graph, "MOST_COUNTED", 2)
    for tokens in range(1, 6):
        kernels.get(KEY._replace(tokens=tokens))
        assert len(kernels._uses) <= 2


def test_the_global_setting_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch._C._jit_llga_enabled()
    compiled(KEY)
    assert torch._C._jit_llga_enabled() == before
    monkeypatch.setattr(attention_graph, "_SOURCE", "def attend(joint): return nothing")
    assert compile_kernel(KEY) is None
    assert torch._C._jit_llga_enabled() == before


def test_there_is_no_kernel_where_torch_fuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention_graph, "_SOURCE", "def attend(joint):\n    return joint.sum([2, 3])"
    )
    assert compile_kernel(KEY) is None
