"""Linears with their weight packed in 8 or 4 bits."""

import ctypes
import functools
from collections.abc import Callable
from typing import ClassVar

import torch

from cpuaccel import BackendError
from cpuaccel_plugins.aten_graph.fastest import least_times
from cpuaccel_plugins.decoding.linear import FewRowsLinear, faster_in_float32, float_linear
from cpuaccel_plugins.decoding.structures import FOUR_BITS, TYPES, CLinear

MOST_CAST = 2**24
"""Most weights that are cast to floats at once."""


class PackedLinear(FewRowsLinear):
    """A linear whose weight has few bits; see kernels/eight_bits.h and kernels/four_bits.h.

    Activations are in 8 bits, with a scale for each 32 of them; those of up to 4 rows, and all on
    processors without AVX512-VNNI, in 16 bits. Where products of floats are faster for many rows,
    such as with AMX, the weight is unpacked for them.

    Attributes:
        packed: the weight as the kernels read it, in int8.
        weight: the same memory in the original's dtype, to which T5 and peft cast activations.
        kind: the number of ``Type``.
    """

    kind: ClassVar[int]

    def __init__(
        self,
        original: torch.nn.Linear,
        library: ctypes.CDLL,
        packed: torch.Tensor | None = None,
    ) -> None:
        """Pack a weight, or take the packed one.

        Raises:
            BackendError: the packed one is that of another linear.
        """
        super().__init__(original, library)
        weight, sizes = self.weight, (self.out_features, self.in_features)
        size = library.cpuaccel_packed_bytes(*sizes, self.kind)
        if packed is None:
            packed = torch.empty(size, dtype=torch.int8)
            library.cpuaccel_pack(
                *(weight.data_ptr(), TYPES[weight.dtype]),
                *(packed.data_ptr(), self.kind, *sizes),
            )
        elif packed.dtype != torch.int8 or packed.shape != (size,):
            raise BackendError(f"a packed weight must have {size} bytes, got {packed.nbytes}")
        self.packed, self.weight = packed, packed.view(weight.dtype)
        self._panel: int = library.cpuaccel_panel()
        self.described = self._describe(self.weight, self.kind)

    def outputs(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute ``count`` of the outputs, from ``begin`` on, of shape (*, count)."""
        if begin % self._panel:
            return self.outputs(inputs, 0, self.out_features)[..., begin : begin + count]
        return super().outputs(inputs, begin, count)

    def described_part(self, begin: int, count: int) -> CLinear:
        """Describe ``count`` of the outputs, from ``begin`` on, where a panel begins."""
        assert begin % self._panel == 0
        return super().described_part(begin, count)

    def unpacked(self, begin: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight of ``count`` outputs, shape (count, inputs), in float32 or bfloat16."""
        weight = torch.empty(count, self.in_features, dtype=dtype)
        part = self.described_part(begin, count)
        self._library.cpuaccel_unpack(
            *(part.weight, self.kind, weight.data_ptr(), TYPES[dtype], count, self.in_features)
        )
        return weight

    def _many_rows(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        if not inputs.is_floating_point():
            raise TypeError(f"activations must be floats, got {inputs.dtype}")
        if self._fits_kernels(inputs) and many_rows_in_integers(self._library):
            return self.many_in_integers(inputs, begin, count)
        return self.many_in_floats(inputs, begin, count)

    def many_in_integers(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute outputs of many rows as those of few."""
        return self._by_kernels(self._library.cpuaccel_linear_of_many, inputs, begin, count)

    def many_in_floats(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute outputs with the unpacked weight."""
        size = (MOST_CAST // self.in_features // self._panel + 1) * self._panel
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
        sizes = self._panel, self.in_features
        return int(self._library.cpuaccel_packed_bytes(*sizes, self.kind)) // self._panel


class Int8Linear(PackedLinear):
    """A linear with its weight in 8 bits, with a scale for each 32 in a row."""

    kind = TYPES[torch.int8]
    bits = 8


class Int4Linear(PackedLinear):
    """A linear with its weight in 4 bits, with a scale and a least weight for each 32 in a row."""

    kind = FOUR_BITS
    bits = 4


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


def is_finite(weight: torch.Tensor) -> bool:
    """Whether all elements are finite; without temporary tensors as large as the weight."""
    return bool(torch.stack(torch.aminmax(weight)).isfinite().all())  # NaN is both
