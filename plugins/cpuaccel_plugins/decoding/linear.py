"""A linear that computes a few rows with the kernels, and more with torch."""

import ctypes
import functools
from collections.abc import Callable
from typing import ClassVar

import torch
from torch.nn.functional import linear

from cpuaccel_plugins.aten_graph.fastest import least_times
from cpuaccel_plugins.decoding.structures import TYPES, CLinear

MOST_ROWS = 16
"""Most rows of activations that the kernels compute: from there on arithmetic is the bound."""

MOST_ROWS_8_BITS = 48
"""The same with weights in 8 bits, which are cast to compute more rows."""

MOST_CAST = 2**24
"""Most weights in 8 bits that are cast to floats at once."""

STEPS = 127
"""Largest magnitude of a weight in 8 bits."""

SMALLEST_SCALE = torch.finfo(torch.float32).tiny


class FewRowsLinear(torch.nn.Module):
    """A linear with the weight as it is: no second copy.

    Attributes:
        described: the structure for the kernels.
        most_rows: most rows of activations that the kernels compute.
    """

    most_rows: ClassVar[int] = MOST_ROWS

    def __init__(self, original: torch.nn.Linear, library: ctypes.CDLL) -> None:
        super().__init__()
        # The same memory, which stays valid where the original's weights are released.
        self.weight = original.weight.detach().contiguous()
        self.bias = None if original.bias is None else original.bias.detach()
        self.in_features, self.out_features = original.in_features, original.out_features
        self._library = library
        self._float_bias = None if self.bias is None else self.bias.float()
        self.described = self._describe(self.weight, None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute inputs of shape (*, inputs)."""
        return self.outputs(inputs, 0, self.out_features)

    def outputs(self, inputs: torch.Tensor, begin: int, count: int) -> torch.Tensor:
        """Compute ``count`` of the outputs, from ``begin`` on, of shape (*, count)."""
        rows = inputs.numel() // self.in_features
        fits = inputs.shape[-1] == self.in_features  # of others torch says what is wrong
        if rows > self.most_rows or inputs.dtype not in TYPES or not fits:
            return self._many_rows(inputs, slice(begin, begin + count))
        inputs = inputs.contiguous()
        output = inputs.new_empty(*inputs.shape[:-1], count)
        whole = count == self.out_features
        self._library.cpuaccel_linear(
            ctypes.byref(self.described if whole else self.described_part(begin, count)),
            inputs.data_ptr(),
            output.data_ptr(),
            TYPES[inputs.dtype],
            rows,
        )
        return output

    def _many_rows(self, inputs: torch.Tensor, outputs: slice) -> torch.Tensor:
        weight = self.weight[outputs]
        if inputs.dtype == torch.bfloat16 and faster_in_float32():
            bias = None if self._float_bias is None else self._float_bias[outputs]
            return float_linear(inputs.float(), weight.float(), bias).to(inputs.dtype)
        return float_linear(inputs, weight, None if self.bias is None else self.bias[outputs])

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight."""
        return self.weight.dtype

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that one step reads."""
        return self.weight.numel() * self.weight.element_size()

    @property
    def bytes_of_output(self) -> int:
        """Bytes of the weights of one output, scales apart."""
        return self.in_features * self.dtype.itemsize

    def described_part(self, begin: int, count: int) -> CLinear:
        """Describe ``count`` of the outputs, from ``begin`` on."""
        whole = self.described
        return CLinear(
            whole.weight + begin * self.bytes_of_output,
            None if whole.scales is None else whole.scales + 4 * begin,
            None if whole.bias is None else whole.bias + 4 * begin,
            count,
            self.in_features,
            whole.type,
        )

    def _describe(self, weight: torch.Tensor, scales: torch.Tensor | None) -> CLinear:
        return CLinear(
            weight.data_ptr(),
            None if scales is None else scales.data_ptr(),
            None if self._float_bias is None else self._float_bias.data_ptr(),
            self.out_features,
            self.in_features,
            TYPES[weight.dtype],
        )


class Int8Linear(FewRowsLinear):
    """A linear with its weight in 8 bits and a scale for each output.

    Few rows of activations are in 16 bits, with a scale for each 256 of them; many are in bfloat16
    where products are faster so, and otherwise in float32.
    """

    most_rows = MOST_ROWS_8_BITS

    def __init__(self, original: torch.nn.Linear, library: ctypes.CDLL) -> None:
        super().__init__(original, library)
        self.steps, self.scales = quantize(self.weight)
        self.weight = self.steps  # T5 casts activations to the weight's dtype unless it is 8 bits
        self.described = self._describe(self.steps, self.scales)

    def _many_rows(self, inputs: torch.Tensor, outputs: slice) -> torch.Tensor:
        size = MOST_CAST // self.in_features + 1
        begins = range(outputs.start, outputs.stop, size)
        parts = [self._cast(inputs, slice(b, min(b + size, outputs.stop))) for b in begins]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _cast(self, inputs: torch.Tensor, outputs: slice) -> torch.Tensor:
        dtype = torch.float32 if faster_in_float32() else torch.bfloat16
        # Exact in either type; scaling the outputs takes less than scaling the weight.
        product = float_linear(inputs.to(dtype), self.steps[outputs].to(dtype))
        output = product * self.scales[outputs]
        if self._float_bias is not None:
            output += self._float_bias[outputs]
        return output.to(inputs.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight."""
        return self.steps.dtype

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that one step reads."""
        return self.steps.numel() + 4 * self.scales.numel()


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


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a weight, shape (outputs, inputs), by the largest magnitude of each output."""
    low, high = torch.aminmax(weight, dim=1)
    scales = (torch.maximum(high, -low).float() / STEPS).clamp_min(SMALLEST_SCALE)
    steps = torch.empty(weight.shape, dtype=torch.int8)
    for begin in range(0, len(weight), 1024):  # in parts: no copy of the whole in float32
        part = slice(begin, begin + 1024)
        divided = torch.div(weight[part], scales[part, None])
        steps[part] = divided.round_().clamp_(-STEPS, STEPS).to(torch.int8)
    return steps, scales
