"""Tensors that depend on sizes alone are computed once for each size, and never returned."""

import threading
from collections.abc import Callable

import pytest
import torch

import cpuaccel
from cpuaccel_plugins.aten_graph.size_cache import SizeCache
from tests.plugins.onednn.graphs import Linears, X, assert_same, fuse

Linear = Callable[[torch.Tensor], torch.Tensor]
Function = Callable[..., torch.Tensor]


def distances(x: torch.Tensor, a: Linear, b: Linear, c: Linear) -> torch.Tensor:
    places = torch.arange(x.shape[1])
    near = (places[:, None] - places).abs() <= 1
    return a(x).transpose(1, 2) @ (near.to(x.dtype) @ b(x)) + c(x).sum()


def positions(x: torch.Tensor, a: Linear, b: Linear, c: Linear) -> torch.Tensor:
    return a(x) + torch.arange(x.shape[0] * 2)[: x.shape[0], None, None] * b(x) + c(x)


def build(function: Function) -> tuple[Linears, cpuaccel.Applied, list[SizeCache]]:
    model = Linears(function)
    applied = fuse(model, X)
    run = applied.model._run  # type: ignore[attr-defined]
    owners = (getattr(bound, "__self__", None) for bound in run.__globals__.values())
    return model, applied, [owner for owner in owners if isinstance(owner, SizeCache)]


@pytest.mark.parametrize("function", [distances, positions])
def test_they_are_computed_once_for_each_size(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, applied, (cache,) = build(function)
    computed: list[tuple[int, ...]] = []
    make = cache._make
    monkeypatch.setattr(cache, "_make", lambda *sizes: computed.append(sizes) or make(*sizes))
    for batch, length in ((3, 5), (3, 5), (1, 9), (1, 9), (3, 5)):
        assert_same(applied, model, torch.randn(batch, length, 8))
    assert len(computed) == 3


def test_what_depends_on_values_is_not_cached() -> None:
    model, applied, caches = build(lambda x, a, b, c: a(x) + torch.ones_like(x) * x.sum() + b(c(x)))
    assert caches == []
    for _ in range(2):
        assert_same(applied, model, torch.randn(3, 5, 8))


def test_random_tensors_are_not_cached() -> None:
    _, applied, caches = build(lambda x, a, b, c: a(x) + torch.rand(x.shape[1], 1) + b(c(x)))
    assert caches == []
    first, second = applied.model(x=X)[0], applied.model(x=X)[0]
    assert not torch.equal(first, second)


class ReturnsPositions(torch.nn.Module):
    """Computes with positions, and also returns them or a view of them."""

    def __init__(self, returned: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.returned = returned

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places, hidden = torch.arange(x.shape[1]), self.linear(x)
        return hidden + places[:, None], self.returned(places, hidden)


@pytest.mark.parametrize(
    "returned",
    [
        lambda places, hidden: places,
        lambda places, hidden: places[None],
        lambda places, hidden: places.view_as(hidden[0, :, 0]),
    ],
    ids=["itself", "a view", "a view like another"],
)
def test_the_caller_may_write_to_outputs(
    returned: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    model = ReturnsPositions(returned).eval()
    applied = fuse(model, X)
    for _ in range(2):
        assert_same(applied, model, X)
        found = applied.model(x=X)
        assert isinstance(found, tuple)
        found[1].fill_(7)


def test_threads_with_other_sizes_get_their_own_tensors() -> None:
    model, applied, (_,) = build(distances)
    wrong: list[int] = []

    def call(length: int) -> None:
        x = torch.randn(1, length, 8, generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            expected = model(x)
            for _ in range(200):
                found = applied.model(x=x)
                assert isinstance(found, tuple)
                if found[0].shape != expected.shape or not torch.allclose(
                    found[0], expected, atol=1e-4
                ):
                    wrong.append(length)

    threads = [threading.Thread(target=call, args=(n,)) for n in (3, 4, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
