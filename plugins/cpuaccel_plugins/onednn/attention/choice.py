"""Which way of attending is really the fastest here, for each kind of attention."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from cpuaccel_plugins.aten_graph.program import hint
from cpuaccel_plugins.aten_graph.timing import fastest
from cpuaccel_plugins.onednn.attention.attend import GRAPH, PRODUCTS, Way, Ways, apart, attend
from cpuaccel_plugins.onednn.attention.graph import Kind, compiled
from cpuaccel_plugins.onednn.heap import trim

LENGTHS = (32, 128, 512)
"""Where the ways are held against each other."""

ROUNDS = 3

MARGIN = 1.05
"""How much faster than products one piece has to be: it is compiled for each length again."""

MOST_HEADS = 16
"""Heads in a probe at most."""


@dataclass
class AttentionChoice:
    """Decides by a short probe for each class of attention: heads, head size and dtype.

    Attributes:
        measure: whether to probe; where not, all is done in one piece.
        found: the classes probed, and the fastest ways.
    """

    measure: bool = True
    found: dict[tuple[int, int, torch.dtype], Ways] = field(default_factory=dict)

    def of(self, query: torch.Tensor) -> Ways:
        """The fastest ways for queries like these, shape (batch, heads, tokens, size)."""
        heads = min(hint(query.shape[1]), MOST_HEADS)
        key = (heads, hint(query.shape[3]), query.dtype)
        if key not in self.found:
            self.found[key] = _measure(*key) if self.measure else GRAPH
        return self.found[key]


def _measure(heads: int, size: int, dtype: torch.dtype) -> Ways:
    def fastest_at(length: int) -> Way:
        # As from one joint linear: tokens first, heads beside each other.
        joint = torch.ones(1, length, 3, heads, size, dtype=dtype)
        query, key, value = apart(joint)
        candidates: dict[Way, Callable[[], object]] = {
            "stock": lambda: scaled_dot_product_attention(query, key, value, scale=1.0),
            "products": lambda: attend(joint, None, 1.0, PRODUCTS),
        }
        kernel = compiled(Kind(1, length, heads, size, dtype, 1.0, torch.get_num_threads()))
        if kernel is not None:
            candidates["graph"] = lambda: kernel(joint)
        times = fastest(candidates, ROUNDS)
        if kernel is not None:
            times["graph"] *= MARGIN
        trim()
        return min(times, key=times.__getitem__)

    return Ways(LENGTHS, tuple(map(fastest_at, LENGTHS)))
