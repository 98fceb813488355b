"""Attention in one piece: that it is one, for which sizes it is compiled, and when."""

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
"""The tests of this folder run in one thread."""


@pytest.fixture
def _one_piece() -> None:
    # Asked in each test: IPEX, once another test has imported it, stays in the process.
    if compile_kernel(KEY) is None:
        pytest.skip("another engine's passes take the place of oneDNN's graph API in this process")


pytestmark = pytest.mark.usefixtures("_one_piece")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> KernelCache:
    """Those of a process that has compiled nothing yet."""
    fresh = KernelCache()
    monkeypatch.setattr(attend_module, "kernels", fresh)
    return fresh


def joint(kind: KernelKey) -> torch.Tensor:
    return torch.randn(kind.batch, kind.tokens, 3, kind.heads, kind.size, dtype=kind.dtype)


def expected(operands: torch.Tensor, scale: float) -> torch.Tensor:
    query, key, value = split_operands(operands)
    return stock(query, key, value, scale=scale).transpose(1, 2).flatten(2)


def made(kind: KernelKey) -> Kernel:
    kernel = compile_kernel(kind)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 7, 128])
@pytest.mark.parametrize(("heads", "size"), [(1, 8), (12, 64), (5, 3)])
def test_it_attends_as_the_stock_operator(batch: int, tokens: int, heads: int, size: int) -> None:
    kind = KEY._replace(batch=batch, tokens=tokens, heads=heads, size=size, scale=0.3)
    operands = joint(kind)
    torch.testing.assert_close(made(kind)(operands), expected(operands, 0.3))


@requires(BF16)
def test_bfloat16() -> None:
    kind = KEY._replace(dtype=torch.bfloat16)
    operands = joint(kind)
    torch.testing.assert_close(
        made(kind)(operands).float(), expected(operands, 0.5).float(), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_serves_in_every_mode(mode: Callable[[], torch.no_grad]) -> None:
    kernel = made(KEY)
    with mode():
        operands = joint(KEY)
        torch.testing.assert_close(kernel(operands), expected(operands, 0.5))


def test_it_is_compiled_when_it_was_called_for_often(kernels: KernelCache) -> None:
    for _ in range(USES - 1):
        assert kernels.get(KEY) is None
    first = kernels.get(KEY)
    assert first is not None
    assert kernels.get(KEY) is first
    assert kernels.get(KEY._replace(tokens=5)) is None


def test_until_then_and_from_then_on_the_answers_are_the_same(kernels: KernelCache) -> None:
    operands = joint(KEY)
    for _ in range(2 * USES):
        torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))
    assert kernels.get(KEY) is not None


def test_a_sequence_cut_out_of_others_is_of_the_sizes_compiled_for(kernels: KernelCache) -> None:
    for _ in range(USES):
        kernels.get(KEY)
    several = torch.randn(1, 20, 3, 2, 4)
    own = slice_tokens(several, 3, 9)
    assert isinstance(own, torch.Tensor)
    found = attend_by_graph(own, 0.5)
    assert found is not None
    torch.testing.assert_close(found, expected(several[:, 3:9], 0.5))


def test_what_has_other_strides_is_left_to_products(kernels: KernelCache) -> None:
    for _ in range(USES):
        kernels.get(KEY)
    operands = torch.randn(1, 20, 3, 2, 4)[:, 3:9]
    assert attend_by_graph(operands, 0.5) is None
    torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))


def test_other_threads_than_compiled_for_are_another_kind(kernels: KernelCache) -> None:
    operands, before = joint(KEY), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for _ in range(USES):
                attend(operands, None, 0.5, GRAPH)
            torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))
    finally:
        torch.set_num_threads(before)
    assert [kind.threads for kind in kernels._kernels] == [1, 2]


def test_while_another_thread_compiles_it_is_not_waited_for(kernels: KernelCache) -> None:
    with kernels._compiling:
        for _ in range(2 * USES):
            assert kernels.get(KEY) is None
    assert kernels.get(KEY) is not None


def test_threads_share_what_is_compile_kernel(kernels: KernelCache) -> None:
    operands = [joint(KEY) for _ in range(4)]
    answers = [expected(one, 0.5) for one in operands]

    def right(place: int) -> bool:
        return all(
            torch.allclose(attend(operands[place], None, 0.5, GRAPH), answers[place], atol=1e-5)
            for _ in range(3 * USES)
        )

    with ThreadPoolExecutor(len(operands)) as pool:
        assert list(pool.map(right, range(len(operands)))) == [True] * len(operands)
    assert list(kernels._kernels) == [KEY]


def test_no_more_are_compiled_than_are_kept(
    kernels: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_graph, "USES", 1)
    monkeypatch.setattr(attention_graph, "MOST_KERNELS", 2)
    kinds = [KEY._replace(tokens=tokens) for tokens in range(1, 5)]
    for _ in range(2):
        assert [kernels.get(kind) is None for kind in kinds] == [False, False, True, True]


def test_calls_for_many_sizes_are_not_all_counted(
    kernels: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_graph, "MOST_COUNTED", 2)
    for tokens in range(1, 6):
        kernels.get(KEY._replace(tokens=tokens))
        assert len(kernels._uses) <= 2


def test_the_setting_that_it_takes_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch._C._jit_llga_enabled()
    made(KEY)
    assert torch._C._jit_llga_enabled() == before
    monkeypatch.setattr(attention_graph, "_SOURCE", "def attend(joint): return nothing")
    assert compile_kernel(KEY) is None
    assert torch._C._jit_llga_enabled() == before


def test_what_torch_makes_no_one_piece_of_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention_graph, "_SOURCE", "def attend(joint):\n    return joint.sum([2, 3])"
    )
    assert compile_kernel(KEY) is None
