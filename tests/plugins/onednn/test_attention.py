"""All methods of attention compared with the stock operator, with every kind of mask."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as stock

from cpuaccel_plugins.onednn.attention import workspace
from cpuaccel_plugins.onednn.attention.attend import GRAPH, PRODUCTS, MethodByLength, attend
from cpuaccel_plugins.onednn.attention.masks import Mask, read_mask
from cpuaccel_plugins.onednn.attention.precision import onednn_matmul
from tests.conftest import Python
from tests.plugins.onednn.graphs import assert_same, fuse, kinds
from tests.required import BF16, requires

ATTENTION = "multi-head attention"
BATCH, HEADS, LENGTH, SIZE = 3, 2, 7, 4
GENERATOR = torch.Generator().manual_seed(0)


def operands(layout: str = "joint") -> tuple[torch.Tensor, ...]:
    joint = torch.randn(BATCH, LENGTH, 3, HEADS, SIZE, generator=GENERATOR)
    if layout == "joint":
        return joint.permute(2, 0, 3, 1, 4).unbind(0)
    return tuple(part.contiguous() for part in joint.permute(2, 0, 3, 1, 4).unbind(0))


def attended(
    given: tuple[torch.Tensor, ...],
    mask: Mask | None,
    scale: float,
    methods: MethodByLength = PRODUCTS,
) -> torch.Tensor:
    """Attention's result in the stock operator's shape."""
    query, key, value = given
    flat = attend((query, key, value), mask, scale, methods)
    return flat.unflatten(-1, query.shape[1::2]).transpose(1, 2)


def padding(*lengths: tuple[int, int]) -> torch.Tensor:
    places = torch.arange(LENGTH)
    return torch.stack([(places >= a) & (places < b) for a, b in lengths])[:, None, None]


HOLES = padding((0, 7), (0, 5), (2, 7)).clone()
HOLES[1, 0, 0, 2] = False
WINDOW = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs()[None, None] <= 1
EMPTY = padding((0, 7), (0, 0), (0, 3))
RIGHT = padding((0, 7), (0, 5), (0, 1))

MASKS = {
    "all attended": torch.ones(BATCH, 1, 1, LENGTH, dtype=torch.bool),
    "right padding": RIGHT,
    "left padding": padding((0, 7), (3, 7), (6, 7)),
    "either side": padding((1, 6), (3, 7), (0, 2)),
    "written out": RIGHT.expand(BATCH, 1, LENGTH, LENGTH),
    "written out in memory": RIGHT.expand(BATCH, HEADS, LENGTH, LENGTH).contiguous(),
    "one row for all": padding((0, 4)),
    "with holes": HOLES,
    "window": WINDOW,
    "window and padding": WINDOW & RIGHT,
    "a row that attends to nothing": EMPTY,
    "zeros": torch.zeros(BATCH, 1, 1, LENGTH),
    "added": torch.where(RIGHT, 0.0, float("-inf")),
    "added, lowest": torch.where(RIGHT, 0.0, torch.finfo(torch.float32).min),
    "added, lowest for all of a row": torch.where(EMPTY, 0.0, torch.finfo(torch.float32).min),
    "a bias": torch.randn(1, HEADS, LENGTH, LENGTH, generator=GENERATOR),
    "a bias and padding": torch.randn(1, HEADS, LENGTH, LENGTH, generator=GENERATOR)
    + torch.where(RIGHT, 0.0, torch.finfo(torch.float32).min),
}


@pytest.mark.parametrize("layout", ["joint", "contiguous"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
def test_results_are_those_of_the_stock_operator(mask: torch.Tensor, layout: str) -> None:
    query, key, value = operands(layout)
    expected = stock(query, key, value, mask, scale=0.3)
    for methods in (PRODUCTS, GRAPH, MethodByLength((1,), ("stock",))):
        found = attended((query, key, value), read_mask(mask, query.dtype), 0.3, methods)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bytes_at_once", [1, 2 * LENGTH * LENGTH * 4 - 1])
def test_heads_that_do_not_fit_the_cache_together_are_computed_in_turn(
    bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "SCORE_BYTES", bytes_at_once)
    monkeypatch.setattr(workspace, "_cache", workspace._WorkspaceCache())
    query, key, value = operands()
    bias = MASKS["a bias"]
    found = attended((query, key, value), read_mask(bias, query.dtype), 0.5)
    torch.testing.assert_close(found, stock(query, key, value, bias, scale=0.5))


def test_fewer_queries_than_keys() -> None:
    query, (_, key, value) = operands()[0][:, :, :3], operands()
    torch.testing.assert_close(
        attended((query, key, value), None, 0.5), stock(query, key, value, scale=0.5)
    )


def test_masks_are_reduced_to_what_they_say() -> None:
    def read(name: str) -> Any:
        return read_mask(MASKS[name], torch.float32)

    assert read("all attended") is None
    assert read("zeros") is None
    assert read("right padding").spans == [(0, 7), (0, 5), (0, 1)]
    assert read("written out in memory").spans == [(0, 7), (0, 5), (0, 1)]
    assert read("added, lowest").spans == [(0, 7), (0, 5), (0, 1)]
    assert read("with holes").added.shape == (BATCH, 1, 1, LENGTH)
    assert read("window").added.shape == (1, 1, LENGTH, LENGTH)
    assert read("a row that attends to nothing").idle.flatten().tolist() == [False, True, False]


def test_the_method_is_that_of_the_nearest_measured_length() -> None:
    methods = MethodByLength((100, 400), ("stock", "graph"))
    assert [methods.nearest(length) for length in (1, 249, 251, 5000)] == [
        "stock",
        "stock",
        "graph",
        "graph",
    ]


def test_methods_are_listed_by_length() -> None:
    methods = MethodByLength((32, 128, 384), ("stock", "graph", "graph"))
    assert str(methods) == "stock at 32; graph at 128, 384 tokens"
    assert str(PRODUCTS) == "products"


class Attention(torch.nn.Module):
    """Calls a function of queries, keys, values and a mask."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        return self.function(q, k, v, mask)


def built(function: Callable[..., torch.Tensor], mask: torch.Tensor) -> dict[str, int]:
    model = Attention(function)
    applied = fuse(model, *operands(), mask)
    assert_same(applied, model, *operands(), mask)
    return kinds(applied)


def test_a_mask_is_read_once_for_all_layers() -> None:
    readings = []

    def twice(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        return stock(stock(q, k, v, mask), k, v, mask)

    model = Attention(twice)
    applied = fuse(model, *operands(), RIGHT)
    run = applied.model._run  # type: ignore[attr-defined]
    name = next(n for n in run.__globals__ if n.startswith("_f_read_mask"))
    run.__globals__[name] = lambda *args: readings.append(args) or read_mask(*args)
    assert_same(applied, model, *operands(), RIGHT)
    assert len(readings) == 1
    assert kinds(applied) == {ATTENTION: 2}


@pytest.mark.parametrize(
    ("function", "mask"),
    [
        (lambda q, k, v, m: stock(q, k, v, is_causal=True), RIGHT),
        (lambda q, k, v, m: stock(q[0], k[0], v[0]), RIGHT),
        (lambda q, k, v, m: stock(q, k[:, :1], v[:, :1], enable_gqa=True), RIGHT),
        (lambda q, k, v, m: stock(q, k, v, m[0, 0].expand(LENGTH, LENGTH)), RIGHT),
        (lambda q, k, v, m: stock(q.double(), k.double(), v.double()), RIGHT),
        (lambda q, k, v, m: stock(q, k, v[..., :2]), RIGHT),
    ],
    ids=["causal", "one sequence", "grouped heads", "a flat mask", "float64", "narrower values"],
)
def test_other_kinds_of_attention_are_not_replaced(
    function: Callable[..., torch.Tensor], mask: torch.Tensor
) -> None:
    assert built(function, mask) == {}


@requires(BF16)
def test_bfloat16() -> None:
    query, key, value = (operand.bfloat16() for operand in operands())
    found = attended((query, key, value), read_mask(RIGHT, query.dtype), 0.5)
    torch.testing.assert_close(
        found.float(), stock(query, key, value, RIGHT, scale=0.5).float(), rtol=2e-2, atol=2e-2
    )


def test_the_softmax_in_place_is_exact() -> None:
    with onednn_matmul():
        query, key, value = (torch.randn(1, 2, 130, 64, generator=GENERATOR) for _ in range(3))
        torch.testing.assert_close(
            attended((query, key, value), None, 0.125),
            stock(query, key, value, scale=0.125),
        )


ALONE = """
import torch
from cpuaccel_plugins.onednn.attention.graph import KernelKey, compile_kernel

key = KernelKey(1, 6, 2, 4, torch.float32, 0.5, torch.get_num_threads())
assert compile_kernel(key) is not None
"""


def test_a_kernel_can_be_compiled_in_a_new_process(python: Python) -> None:
    python(ALONE)
