"""A linear with its weight in 4 bits, with a scale and a least weight for each 32 in a row."""

import ctypes

import torch

from cpuaccel_plugins.decoding.linear import FewRowsLinear, faster_in_float32, float_linear
from cpuaccel_plugins.decoding.structures import FOUR_BITS, TYPES, CLinear

BLOCK, BLOCK_BYTES = 64, 40
"""Weights in a block of two groups, and its bytes."""


class Int4Linear(FewRowsLinear):
    """A linear with its weight in 4 bits.

    Few rows of activations are in 8 bits, with a scale for each 64 of them; for many the
    weight is unpacked, to bfloat16 where products are faster so.

    Attributes:
        blocks: the packed weight, of shape (blocks, bytes); see ``FourBits`` in kernels/.
    """

    def __init__(self, original: torch.nn.Linear, library: ctypes.CDLL) -> None:
        super().__init__(original, library)
        weight = self.weight
        self.blocks = torch.empty(weight.numel() // BLOCK, BLOCK_BYTES, dtype=torch.uint8)
        library.cpuaccel_pack(
            *(weight.data_ptr(), TYPES[weight.dtype]),
            *(self.blocks.data_ptr(), len(self.blocks)),
        )
        del self.weight
        bias = None if self._float_bias is None else self._float_bias.data_ptr()
        self.described = CLinear(
            *(self.blocks.data_ptr(), bias),
            *(self.out_features, self.in_features, FOUR_BITS),
        )

    def unpacked(self, begin: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight of ``count`` outputs, shape (count, inputs), in float32 or bfloat16."""
        row = self.in_features // BLOCK
        blocks = self.blocks[begin * row : (begin + count) * row]
        weight = torch.empty(count, self.in_features, dtype=dtype)
        self._library.cpuaccel_unpack(
            blocks.data_ptr(), weight.data_ptr(), TYPES[dtype], len(blocks)
        )
        return weight

    def _many_rows(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        dtype = torch.float32 if faster_in_float32() else torch.bfloat16
        bias = None
        if self._float_bias is not None:
            bias = self._float_bias[begin : begin + count].to(dtype)
        weight = self.unpacked(begin, count, dtype)
        output = float_linear(inputs.to(dtype), weight, bias)
        return output.to(inputs.dtype)

    @property
    def stored(self) -> torch.Tensor:
        """The packed weight, of which a byte holds two weights."""
        return self.blocks

    @property
    def bytes_of_output(self) -> int:
        """Bytes of the weights of one output, with scales."""
        return self.in_features // BLOCK * BLOCK_BYTES


def fits_in_4_bits(linear: torch.nn.Linear) -> bool:
    """Whether the inputs of a linear are a multiple of a block."""
    return linear.in_features % BLOCK == 0
