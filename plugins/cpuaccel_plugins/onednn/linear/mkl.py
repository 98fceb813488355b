"""Linears by MKL, on packed weights."""

import torch


def is_available() -> bool:
    """Whether this torch has MKL and its operator for packed weights, which Inductor uses."""
    built_in = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
    return built_in and hasattr(torch.ops.mkl, "_mkl_linear")


ROWS = 256
"""Rows to pack for. Any number works: MKL's reference requires the same layout in packing and
computing, not the same sizes. From 16 to 2,000 rows that was as fast as packing for exactly so
many; packing for 1,000 rows and more took twice as long for fewer."""


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Pack a weight; float32, shape (out features, in features)."""
    packed: torch.Tensor = torch.ops.mkl._mkl_reorder_linear_weight(weight, ROWS)
    return packed


def shape_of(weight: torch.Tensor) -> torch.Tensor:
    """A tensor of a weight's shape that takes no memory."""
    return weight.new_zeros(1).expand(weight.shape)


def linear(
    inputs: torch.Tensor, packed: torch.Tensor, shape: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """``torch.nn.functional.linear`` in float32, by a weight from ``pack`` and its ``shape_of``.

    Shape (*, in features) becomes (*, out features).
    """
    rows = inputs.numel() // shape.shape[1]  # with another number it would use ``shape`` instead
    result: torch.Tensor = torch.ops.mkl._mkl_linear(inputs, packed, shape, bias, rows)
    return result


def unpack(packed: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """The weight that was packed, exact if it is finite: its product with the identity."""
    return linear(torch.eye(shape.shape[1]), packed, shape, None).t().contiguous()
