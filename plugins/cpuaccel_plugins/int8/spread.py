"""Keeping a few large columns of activations from taking the room of all others.

One scale serves all of a tensor, so that the few columns of outliers which transformers have would
leave few steps for the rest. A column that is divided by n and stands there n times, before the
same weights each time, gives the same product: it costs some columns, and no exactness of weights.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

SHARE = 24
"""One column in so many is added."""

WORTH = 1.5
"""By how much the largest column has to shrink for it."""

MULTIPLE = 4
"""Columns are added by so many: as many as a processor multiplies at a time."""

Matrix = tuple[int, torch.Size]
"""By what a weight is known: address and shape."""


@dataclass(frozen=True, eq=False)
class Spread:
    """What becomes of the columns of activations.

    Attributes:
        factors: one over how often a column stands there, float32, shape (in features,).
        repeated: the columns that are put behind the others, int64.
    """

    factors: torch.Tensor
    repeated: torch.Tensor

    @classmethod
    def of(cls, largest: torch.Tensor) -> "Spread":
        """Repeat the largest columns; none, where that helps little.

        Args:
            largest: of each column the largest magnitude expected, shape (in features,). Should
                activations be larger, they lose exactness, not more.
        """
        columns = len(largest)
        left = -(-columns // (SHARE * MULTIPLE)) * MULTIPLE
        heap = [(-size, column, 1) for column, size in enumerate(largest.tolist())]
        heapq.heapify(heap)
        repeated = []
        for _ in range(left):
            size, column, copies = heap[0]
            repeated.append(column)
            heapq.heapreplace(heap, (size * copies / (copies + 1), column, copies + 1))
        if float(largest.max()) <= WORTH * -heap[0][0]:
            return cls.none(columns)
        factors = torch.ones(columns)
        for _, column, copies in heap:
            factors[column] = 1 / copies
        return cls(factors, torch.tensor(repeated))

    @classmethod
    def none(cls, columns: int) -> "Spread":
        """Leave all columns as they are."""
        return cls(torch.ones(columns), torch.empty(0, dtype=torch.int64))


def spreads(run: Callable[[], object]) -> dict[Matrix, Spread]:
    """See what the linears of a model are given while it runs, and spread that.

    Returns:
        By the linear's weight.
    """
    with _Watching() as watching:
        run()
    return {matrix: Spread.of(largest) for matrix, largest in watching.largest.items()}


def matrix_of(weight: torch.Tensor) -> Matrix:
    """By what a weight is known."""
    return weight.data_ptr(), weight.shape


class _Watching(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[Matrix, torch.Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is linear:
            given, weight = args[:2]
            assert isinstance(given, torch.Tensor)
            assert isinstance(weight, torch.Tensor)
            found = given.detach().reshape(-1, given.shape[-1]).float().abs().amax(0).nan_to_num(0)
            known = self.largest.get(matrix_of(weight), found)
            self.largest[matrix_of(weight)] = torch.maximum(known, found)
        return func(*args, **(kwargs or {}))
