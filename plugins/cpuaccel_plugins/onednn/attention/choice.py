"""Which method of attention is fastest here, for each kind of attention."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from cpuaccel_plugins.aten_graph.fastest import FastestChoice, least_times
from cpuaccel_plugins.aten_graph.nodes import example_size
from cpuaccel_plugins.onednn.attention.attend import (
    GRAPH,
    PRODUCTS,
    Method,
    MethodByLength,
    attend,
    split_operands,
)
from cpuaccel_plugins.onednn.attention.graph import KernelKey, compile_kernel
from cpuaccel_plugins.onednn.attention.kernel import attend_to_all, multiplies_bfloat16

LENGTHS = (32, 128, 512)
ROUNDS = 5

MARGIN = 1.05
"""How much faster than products a compiled kernel has to be: each length is compiled again."""

MOST_HEADS = 16


class AttentionKind(NamedTuple):
    """Which attention one probe stands for."""

    heads: int
    head_size: int
    dtype: torch.dtype
    length: int


class AttentionChoice:
    """Chooses the method of attention; without ``measure``, compiled kernels for all.

    ``exact``: no products of float32 in bfloat16.
    """

    def __init__(self, *, measure: bool = True, exact: bool = True) -> None:
        self._measure = measure
        self.methods: FastestChoice[AttentionKind, Method] = FastestChoice(
            partial(_measure, exact=exact), handicaps={"graph": MARGIN}
        )

    def method_by_length(self, query: torch.Tensor) -> MethodByLength:
        """The fastest methods for queries like these, shape (batch, heads, tokens, head size)."""
        if not self._measure:
            return GRAPH
        heads = min(example_size(query.shape[1]), MOST_HEADS)
        kind = partial(AttentionKind, heads, example_size(query.shape[3]), query.dtype)
        return MethodByLength(
            LENGTHS, tuple(self.methods.fastest(kind(length)) for length in LENGTHS)
        )


def _measure(kind: AttentionKind, *, exact: bool) -> dict[Method, float]:
    heads, size, dtype, length = kind
    # As one joint linear returns it: tokens first, heads side by side.
    joint = torch.ones(1, length, 3, heads, size, dtype=dtype)
    query, key, value = split_operands(joint)
    candidates: dict[Method, Callable[[], object]] = {
        "stock": lambda: scaled_dot_product_attention(query, key, value, scale=1.0),
        "products": lambda: attend(joint, None, 1.0, PRODUCTS),
    }
    kernel = compile_kernel(KernelKey(1, length, heads, size, dtype, 1.0, torch.get_num_threads()))
    if kernel is not None:
        candidates["graph"] = lambda: kernel(joint)
    out = torch.empty(1, length, heads * size, dtype=dtype)
    own = partial(attend_to_all, query, key, value, 1.0, out)
    if own(narrow=False):
        candidates["kernel"] = lambda: own(narrow=False)
        if not exact and multiplies_bfloat16():
            candidates["bfloat16 kernel"] = lambda: own(narrow=True)
    return least_times(candidates, ROUNDS)
