"""A linear that computes a few rows with the kernels, and more with torch."""

import ctypes
import functools
from collections.abc import Callable
from typing import ClassVar

import torch
from torch.nn.functional import linear

from cpuaccel_plugins.aten_graph.fastest import least_times
from cpuaccel_plugins.decoding.structures import FLOATS, TYPES, CLinear

MOST_ROWS = 16
"""Most rows of activations that the kernels compute: from there on arithmetic is the bound."""


class FewRowsLinear(torch.nn.Module):
    """A linear with the weight as it is: no second copy.

    Attributes:
        bits: of a weight that has few, 8 or 4; 0 for one of floats.
        weight: what the kernels read.
        described: the structure for the kernels.
    """

    bits: ClassVar[int] = 0

    def __init__(self, original: torch.nn.Linear, library: ctypes.CDLL) -> None:
        super().__init__()
        # The same memory, which stays valid where the original's weights are released.
        self.weight = original.weight.detach().contiguous()
        self.bias = None if original.bias is None else original.bias.detach()
        self.in_features, self.out_features = original.in_features, original.out_features
        self._library = library
        self._float_bias = None if self.bias is None else self.bias.float()
        self.described = self._describe(self.weight, TYPES[self.weight.dtype])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute inputs of shape (*, inputs)."""
        return self.outputs(inputs, 0, self.out_features)

    def outputs(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute ``count`` of the outputs, from ``begin`` on, of shape (*, count)."""
        few = inputs.numel() <= MOST_ROWS * self.in_features
        if few and self._fits_kernels(inputs):
            return self._by_kernels(self._library.cpuaccel_linear, inputs, begin, count)
        return self._many_rows(inputs, begin, count)

    def _fits_kernels(self, inputs: torch.Tensor) -> bool:
        # Of other inputs torch says what is wrong.
        return inputs.dtype in FLOATS and inputs.shape[-1] == self.in_features

    def _by_kernels(
        self, kernel: Callable[..., None], inputs: torch.Tensor, begin: int, count: int
    ) -> torch.Tensor:
        inputs = inputs.contiguous()
        output = inputs.new_empty(*inputs.shape[:-1], count)
        whole = count == self.out_features
        kernel(
            ctypes.byref(self.described if whole else self.described_part(begin, count)),
            *(inputs.data_ptr(), output.data_ptr()),
            *(TYPES[inputs.dtype], inputs.numel() // self.in_features),
        )
        return output

    def _many_rows(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        outputs = slice(begin, begin + count)
        weight = self.weight[outputs]
        if inputs.dtype == torch.bfloat16 and faster_in_float32():
            bias = None if self._float_bias is None else self._float_bias[outputs]
            return float_linear(inputs.float(), weight.float(), bias).to(inputs.dtype)
        return float_linear(inputs, weight, None if self.bias is None else self.bias[outputs])

    @property
    def has_few_bits(self) -> bool:
        """Whether the weight has 8 or 4 bits, for which activations are rounded, too."""
        return self.bits != 0

    @property
    def bytes_of_output(self) -> int:
        """Bytes of the weights of one output."""
        return self.in_features * self.weight.element_size()

    def described_part(self, begin: int, count: int) -> CLinear:
        """Describe ``count`` of the outputs, from ``begin`` on."""
        whole = self.described
        return CLinear(
            whole.weight + begin * self.bytes_of_output,
            None if whole.bias is None else whole.bias + 4 * begin,
            count,
            self.in_features,
            whole.type,
        )

    def _describe(self, weight: torch.Tensor, kind: int) -> CLinear:
        return CLinear(
            weight.data_ptr(),
            None if self._float_bias is None else self._float_bias.data_ptr(),
            self.out_features,
            self.in_features,
            kind,
        )


def float_linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute many rows, by the faster of the libraries that torch has for float32."""
    if inputs.dtype == weight.dtype == torch.float32 and faster_by_onednn():
        return _by_onednn(inputs.contiguous(), weight, bias)
    return linear(inputs, weight, bias)


def _by_onednn(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return output


@functools.cache
def faster_by_onednn() -> bool:
    """Whether oneDNN multiplies faster in float32 than MKL, which is torch's choice."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight, inputs = torch.zeros(512, 512), torch.zeros(64, 512)
    ways: dict[bool, Callable[[], object]] = {
        True: lambda: _by_onednn(inputs, weight, None),
        False: lambda: linear(inputs, weight),
    }
    times = least_times(ways, rounds=3)
    return times[True] < times[False]


@functools.cache
def faster_in_float32() -> bool:
    """Whether casting bfloat16 to float32 and multiplying is faster here; computes some."""
    weight, inputs = torch.zeros(512, 512, dtype=torch.bfloat16), torch.zeros(64, 512)
    narrow = inputs.bfloat16()
    ways: dict[bool, Callable[[], object]] = {
        True: lambda: float_linear(narrow.float(), weight.float()),
        False: lambda: linear(narrow, weight),
    }
    times = least_times(ways, rounds=3)
    return times[True] < times[False]
