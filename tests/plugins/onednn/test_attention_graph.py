"""Attention in one piece: that it is one, for which sizes it is compiled, and when."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as stock

import cpuaccel
from cpuaccel_plugins.onednn.attention import attend as attend_module
from cpuaccel_plugins.onednn.attention import graph as attention_graph
from cpuaccel_plugins.onednn.attention.attend import GRAPH, apart, attend, by_graph, cut
from cpuaccel_plugins.onednn.attention.graph import USES, Kernel, Kernels, Kind, compiled

KIND = Kind(1, 6, 2, 4, torch.float32, 0.5, threads=1)
"""The tests of this folder run in one thread."""


@pytest.fixture
def _one_piece() -> None:
    # Asked in each test: IPEX, once another test has imported it, stays in the process.
    if compiled(KIND) is None:
        pytest.skip("another engine's passes take the place of oneDNN's graph API in this process")


pytestmark = pytest.mark.usefixtures("_one_piece")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """Those of a process that has compiled nothing yet."""
    fresh = Kernels()
    monkeypatch.setattr(attend_module, "kernels", fresh)
    return fresh


def joint(kind: Kind) -> torch.Tensor:
    return torch.randn(kind.batch, kind.tokens, 3, kind.heads, kind.size, dtype=kind.dtype)


def expected(operands: torch.Tensor, scale: float) -> torch.Tensor:
    query, key, value = apart(operands)
    return stock(query, key, value, scale=scale).transpose(1, 2).flatten(2)


def made(kind: Kind) -> Kernel:
    kernel = compiled(kind)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 7, 128])
@pytest.mark.parametrize(("heads", "size"), [(1, 8), (12, 64), (5, 3)])
def test_it_attends_as_the_stock_operator(batch: int, tokens: int, heads: int, size: int) -> None:
    kind = KIND._replace(batch=batch, tokens=tokens, heads=heads, size=size, scale=0.3)
    operands = joint(kind)
    torch.testing.assert_close(made(kind)(operands), expected(operands, 0.3))


def test_bfloat16() -> None:
    if not (verdict := cpuaccel.host().bf16()):
        pytest.skip(str(verdict))
    kind = KIND._replace(dtype=torch.bfloat16)
    operands = joint(kind)
    torch.testing.assert_close(
        made(kind)(operands).float(), expected(operands, 0.5).float(), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_serves_in_every_mode(mode: Callable[[], torch.no_grad]) -> None:
    kernel = made(KIND)
    with mode():
        operands = joint(KIND)
        torch.testing.assert_close(kernel(operands), expected(operands, 0.5))


def test_it_is_compiled_when_it_was_called_for_often(kernels: Kernels) -> None:
    for _ in range(USES - 1):
        assert kernels.of(KIND) is None
    first = kernels.of(KIND)
    assert first is not None
    assert kernels.of(KIND) is first
    assert kernels.of(KIND._replace(tokens=5)) is None


def test_until_then_and_from_then_on_the_answers_are_the_same(kernels: Kernels) -> None:
    operands = joint(KIND)
    for _ in range(2 * USES):
        torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))
    assert kernels.of(KIND) is not None


def test_a_sequence_cut_out_of_others_is_of_the_sizes_compiled_for(kernels: Kernels) -> None:
    for _ in range(USES):
        kernels.of(KIND)
    several = torch.randn(1, 20, 3, 2, 4)
    own = cut(several, 3, 9)
    assert isinstance(own, torch.Tensor)
    found = by_graph(own, 0.5)
    assert found is not None
    torch.testing.assert_close(found, expected(several[:, 3:9], 0.5))


def test_what_has_other_strides_is_left_to_products(kernels: Kernels) -> None:
    for _ in range(USES):
        kernels.of(KIND)
    operands = torch.randn(1, 20, 3, 2, 4)[:, 3:9]
    assert by_graph(operands, 0.5) is None
    torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))


def test_other_threads_than_compiled_for_are_another_kind(kernels: Kernels) -> None:
    operands, before = joint(KIND), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for _ in range(USES):
                attend(operands, None, 0.5, GRAPH)
            torch.testing.assert_close(attend(operands, None, 0.5, GRAPH), expected(operands, 0.5))
    finally:
        torch.set_num_threads(before)
    assert [kind.threads for kind in kernels._found] == [1, 2]


def test_while_another_thread_compiles_it_is_not_waited_for(kernels: Kernels) -> None:
    with kernels._compiling:
        for _ in range(2 * USES):
            assert kernels.of(KIND) is None
    assert kernels.of(KIND) is not None


def test_threads_share_what_is_compiled(kernels: Kernels) -> None:
    operands = [joint(KIND) for _ in range(4)]
    answers = [expected(one, 0.5) for one in operands]

    def right(place: int) -> bool:
        return all(
            torch.allclose(attend(operands[place], None, 0.5, GRAPH), answers[place], atol=1e-5)
            for _ in range(3 * USES)
        )

    with ThreadPoolExecutor(len(operands)) as pool:
        assert list(pool.map(right, range(len(operands)))) == [True] * len(operands)
    assert list(kernels._found) == [KIND]


def test_no_more_are_compiled_than_are_kept(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_graph, "USES", 1)
    monkeypatch.setattr(attention_graph, "KEPT", 2)
    kinds = [KIND._replace(tokens=tokens) for tokens in range(1, 5)]
    for _ in range(2):
        assert [kernels.of(kind) is None for kind in kinds] == [False, False, True, True]


def test_calls_for_many_sizes_are_not_all_counted(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_graph, "COUNTED", 2)
    for tokens in range(1, 6):
        kernels.of(KIND._replace(tokens=tokens))
        assert len(kernels._uses) <= 2


def test_the_setting_that_it_takes_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch._C._jit_llga_enabled()
    made(KIND)
    assert torch._C._jit_llga_enabled() == before
    monkeypatch.setattr(attention_graph, "_SOURCE", "def attend(joint): return nothing")
    assert compiled(KIND) is None
    assert torch._C._jit_llga_enabled() == before


def test_what_torch_makes_no_one_piece_of_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention_graph, "_SOURCE", "def attend(joint):\n    return joint.sum([2, 3])"
    )
    assert compiled(KIND) is None
