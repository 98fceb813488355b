"""Outlier columns of activations, split so that they don't take the range of all others.

One scale serves a whole tensor, and transformers have a few columns of activations that are much
larger than the rest. A column that is divided by n and repeated n times, before the same weights
each time, gives the same product with a smaller scale. It costs some columns, but weights stay as
exact as they are.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from cpuaccel_plugins.int8.linear_hook import LinearHook

SHARE = 24
"""One column is added for this many columns."""

LEAST_GAIN = 1.5
"""By which factor the largest column has to shrink to make that worth it."""

MULTIPLE = 4
"""Columns are added in multiples of this: a processor multiplies as many at a time."""

WeightKey: TypeAlias = tuple[int, torch.Size]
"""Address and shape of a weight."""


@dataclass(frozen=True, eq=False)
class OutlierSplit:
    """How columns of activations are divided and repeated."""

    factors: torch.Tensor  # one over the occurrences of a column, float32, shape (in features,)
    repeated: torch.Tensor  # the columns to append, int64

    @classmethod
    def from_largest(cls, largest: torch.Tensor) -> "OutlierSplit":
        """Split the columns of the largest expected magnitudes; none if that gains little.

        ``largest`` has shape (in features,). Larger activations are computed less exactly,
        but not cut off.
        """
        columns = len(largest)
        added = -(-columns // (SHARE * MULTIPLE)) * MULTIPLE
        heap = [(-size, column, 1) for column, size in enumerate(largest.tolist())]
        heapq.heapify(heap)
        repeated = []
        for _ in range(added):
            size, column, copies = heap[0]
            repeated.append(column)
            heapq.heapreplace(heap, (size * copies / (copies + 1), column, copies + 1))
        if float(largest.max()) <= LEAST_GAIN * -heap[0][0]:
            return cls.none(columns)
        factors = torch.ones(columns)
        for _, column, copies in heap:
            factors[column] = 1 / copies
        return cls(factors, torch.tensor(repeated))

    @classmethod
    def none(cls, columns: int) -> "OutlierSplit":
        """Leave all columns as they are."""
        return cls(torch.ones(columns), torch.empty(0, dtype=torch.int64))


def outlier_splits(run: Callable[[], object]) -> dict[WeightKey, OutlierSplit]:
    """Run a model and derive a split from the inputs of each of its linears, by its weight."""
    largest: dict[WeightKey, torch.Tensor] = {}

    def observe(inputs: torch.Tensor, weight: torch.Tensor, bias: object) -> None:
        columns = inputs.detach().reshape(-1, inputs.shape[-1])
        magnitudes = columns.float().abs().amax(0).nan_to_num(0)
        key = weight_key(weight)
        largest[key] = torch.maximum(largest.get(key, magnitudes), magnitudes)

    with LinearHook(observe):
        run()
    return {key: OutlierSplit.from_largest(magnitudes) for key, magnitudes in largest.items()}


def weight_key(weight: torch.Tensor) -> WeightKey:
    """Address and shape of a weight."""
    return weight.data_ptr(), weight.shape
