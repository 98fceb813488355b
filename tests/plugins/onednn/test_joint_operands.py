"""Attention reads queries, keys and values of one joint linear as one tensor, but no others."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as attention

from cpuaccel_plugins.onednn.attention.attend import attend
from tests.plugins.onednn.graphs import Linears, X, assert_same, fuse, kinds

Linear = Callable[[torch.Tensor], torch.Tensor]
Function = Callable[..., torch.Tensor]

FUSED = {"concat linear": 1, "multi-head attention": 1}


def heads(projected: torch.Tensor, count: int = 2) -> torch.Tensor:
    batch, length, width = projected.shape
    return projected.view(batch, length, count, width // count).transpose(1, 2)


def joined(out: torch.Tensor) -> torch.Tensor:
    return out.transpose(1, 2).flatten(2)


def ordinary(x: torch.Tensor, q: Linear, k: Linear, v: Linear) -> torch.Tensor:
    return joined(attention(heads(q(x)), heads(k(x)), heads(v(x))))


def sizes_left_open(x: torch.Tensor, q: Linear, k: Linear, v: Linear) -> torch.Tensor:
    cut = [part(x).view(*x.shape[:2], -1, 4).transpose(1, 2) for part in (q, k, v)]
    return joined(attention(cut[0], cut[1], cut[2]))


def another_order(x: torch.Tensor, q: Linear, k: Linear, v: Linear) -> torch.Tensor:
    query, key, value = heads(q(x)), heads(k(x)), heads(v(x))
    return joined(attention(key, query, value))


def one_scaled(x: torch.Tensor, q: Linear, k: Linear, v: Linear) -> torch.Tensor:
    return joined(attention(heads(q(x)) * 2, heads(k(x)), heads(v(x))))


def one_used_twice(x: torch.Tensor, q: Linear, k: Linear, v: Linear) -> torch.Tensor:
    return (
        joined(attention(heads(q(x)), heads(k(x)), heads(k(x))))
        + heads(v(x)).sum((1, 3))[..., None]
    )


def tokens_moved(x: torch.Tensor, q: Linear, k: Linear, v: Linear) -> torch.Tensor:
    batch, length, width = x.shape
    cut = [part(x).view(batch, 2 * length, 1, width // 2).transpose(1, 2) for part in (q, k, v)]
    return attention(cut[0], cut[1], cut[2]).transpose(1, 2).reshape(batch, length, width)


def operands_of_attention(function: Function, monkeypatch: pytest.MonkeyPatch) -> object:
    """What attention is called with, in a graph with the outputs of the function."""
    model = Linears(function)
    applied = fuse(model, X)
    assert kinds(applied) == FUSED
    seen: list[object] = []
    run = applied.model._run  # type: ignore[attr-defined]

    def seeing(operands: object, *args: object) -> torch.Tensor:
        seen.append(operands)
        return attend(operands, *args)  # type: ignore[arg-type]

    monkeypatch.setitem(run.__globals__, "_f_attend", seeing)
    for batch, length in ((3, 5), (1, 9)):
        assert_same(applied, model, torch.randn(batch, length, 8))
    assert len(seen) == 2
    return seen[0]


@pytest.mark.parametrize("function", [ordinary, sizes_left_open])
def test_a_joint_result_is_passed_on_as_it_is(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = operands_of_attention(function, monkeypatch)
    assert isinstance(joint, torch.Tensor)
    assert joint.shape == (3, 5, 3, 2, 4)


@pytest.mark.parametrize("function", [another_order, one_scaled, one_used_twice, tokens_moved])
def test_other_operands_are_passed_separately(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(operands_of_attention(function, monkeypatch), tuple)
