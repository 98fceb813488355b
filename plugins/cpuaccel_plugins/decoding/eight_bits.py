"""A linear with its weight in 8 bits, with a scale for each 128 in a row."""

import ctypes
import functools
from collections.abc import Callable

import torch

from cpuaccel_plugins.aten_graph.fastest import least_times
from cpuaccel_plugins.decoding.linear import FewRowsLinear, faster_in_float32, float_linear
from cpuaccel_plugins.decoding.structures import TYPES

MOST_CAST = 2**24
"""Most weights that are cast to floats at once."""


class Int8Linear(FewRowsLinear):
    """A linear with its weight in 8 bits.

    Activations are in 8 bits, with a scale for each 32 of them (in 16 bits on processors without
    AVX512-VNNI). Where products of floats are faster for many rows, such as with AMX, the weight is
    unpacked for them.

    Attributes:
        weight: packed for the kernels; see kernels/eight_bits.h. Its dtype is int8: T5 casts
            activations to the weight's dtype unless it has 8 bits.
    """

    def __init__(self, original: torch.nn.Linear, library: ctypes.CDLL) -> None:
        super().__init__(original, library)
        weight, sizes = self.weight, (self.out_features, self.in_features)
        self.weight = torch.empty(library.cpuaccel_packed_bytes(*sizes), dtype=torch.int8)
        library.cpuaccel_pack8(
            *(weight.data_ptr(), TYPES[weight.dtype], self.weight.data_ptr(), *sizes)
        )
        self.described = self._describe(self.weight)

    def unpacked(self, begin: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight of ``count`` outputs, shape (count, inputs), in float32 or bfloat16."""
        weight = torch.empty(count, self.in_features, dtype=dtype)
        part = self.described_part(begin, count)
        self._library.cpuaccel_unpack8(
            *(part.weight, weight.data_ptr(), TYPES[dtype], count, self.in_features)
        )
        return weight

    def _many_rows(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        if self._fits_kernels(inputs) and many_rows_in_integers(self._library):
            return self.many_in_integers(inputs, begin, count)
        return self.many_in_floats(inputs, begin, count)

    def many_in_integers(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute outputs of many rows as those of few."""
        return self._by_kernels(self._library.cpuaccel_linear_of_many, inputs, begin, count)

    def many_in_floats(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute outputs with the unpacked weight."""
        panel = self._library.cpuaccel_panel()
        size = (MOST_CAST // self.in_features // panel + 1) * panel
        dtype = torch.float32 if faster_in_float32() else torch.bfloat16
        narrow, parts = inputs.to(dtype), []
        for first in range(begin, begin + count, size):
            part = min(size, begin + count - first)
            parts.append(float_linear(narrow, self.unpacked(first, part, dtype)))
        output = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if self._float_bias is not None:
            output = output + self._float_bias[begin : begin + count]
        return output.to(inputs.dtype)

    @property
    def bytes_of_output(self) -> int:
        """Bytes of the packed weights of one output, on average over its panel."""
        panel: int = self._library.cpuaccel_panel()
        return int(self._library.cpuaccel_packed_bytes(panel, self.in_features)) // panel


@functools.cache
def many_rows_in_integers(library: ctypes.CDLL) -> bool:
    """Whether many rows are computed faster in integers than in floats here; computes some."""
    linear = Int8Linear(torch.nn.Linear(1024, 1024, bias=False), library)
    inputs = torch.ones(256, 1024)
    ways: dict[bool, Callable[[], object]] = {
        True: lambda: linear.many_in_integers(inputs, 0, 1024),
        False: lambda: linear.many_in_floats(inputs, 0, 1024),
    }
    times = least_times(ways, rounds=3)
    return times[True] < times[False]
