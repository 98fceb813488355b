"""When attention through matrix products is really faster here, for each kind of attention."""

from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from .attend import ALWAYS, Products, apart, attend
from .program import hint
from .stopwatch import fastest

LENGTHS = (32, 128, 384, 768)
"""Where the two ways are held against each other."""

ROUNDS = 3
MOST_HEADS = 16
"""Heads in a probe at most."""


@dataclass
class AttentionChoice:
    """Decides by a short probe for each class of attention: heads, head size and dtype.

    Attributes:
        measure: whether to probe; where not, matrix products are used for every length.
        found: the classes probed, and when matrix products pay.
    """

    measure: bool = True
    found: dict[tuple[int, int, torch.dtype], Products] = field(default_factory=dict)

    def of(self, query: torch.Tensor) -> Products:
        """When matrix products pay for queries like these, shape (batch, heads, tokens, size)."""
        heads = min(hint(query.shape[1]), MOST_HEADS)
        key = (heads, hint(query.shape[3]), query.dtype)
        if key not in self.found:
            self.found[key] = _measure(*key) if self.measure else ALWAYS
        return self.found[key]


def _measure(heads: int, size: int, dtype: torch.dtype) -> Products:
    def faster(length: int) -> bool:
        # As from one joint linear: tokens first, heads beside each other.
        joint = torch.ones(1, length, 3, heads, size, dtype=dtype)
        query, key, value = apart(joint)
        times = fastest(
            {
                "stock": lambda: scaled_dot_product_attention(query, key, value, scale=1.0),
                "products": lambda: attend(joint, None, 1.0, ALWAYS),
            },
            ROUNDS,
        )
        return times["products"] < times["stock"]

    return Products(LENGTHS, tuple(map(faster, LENGTHS)))
