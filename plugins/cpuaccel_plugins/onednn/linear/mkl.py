"""Linears through MKL, on weights that it has packed."""

import torch


def available() -> bool:
    """Whether this torch has MKL, and the operator that Inductor uses of it."""
    built_in = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
    return built_in and hasattr(torch.ops.mkl, "_mkl_linear")


ROWS = 256
"""Rows that weights are packed for. They serve any others, for MKL's reference asks for the same
layout of matrices in packing and computing, not for the same sizes; and they serve them well: from
16 to 2,000 rows as fast as if packed for just so many, where those packed for 1,000 and more took
twice as long for fewer."""


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Bring a weight into MKL's own layout; float32, shape (out features, in features)."""
    packed: torch.Tensor = torch.ops.mkl._mkl_reorder_linear_weight(weight, ROWS)
    return packed


def outline(weight: torch.Tensor) -> torch.Tensor:
    """A tensor with a weight's shape and no memory of its own, which tells ``multiply`` sizes."""
    return weight.new_zeros(1).expand(weight.shape)


def multiply(
    given: torch.Tensor, packed: torch.Tensor, shaped: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """``torch.nn.functional.linear`` on a packed weight.

    Args:
        given: float32, shape (*, in features).
        packed: what ``pack`` made.
        shaped: the weight's ``outline``.
        bias: shape (out features,), or None.

    Returns:
        Shape (*, out features).
    """
    rows = given.numel() // shaped.shape[1]  # with any other number it takes its dense weight
    result: torch.Tensor = torch.ops.mkl._mkl_linear(given, packed, shaped, bias, rows)
    return result


def unpack(packed: torch.Tensor, shaped: torch.Tensor) -> torch.Tensor:
    """The weight that was packed: finite ones come back exactly, as a product with ones."""
    one = torch.eye(shaped.shape[1])
    return multiply(one, packed, shaped, None).t().contiguous()
