"""Attention by a kernel of our own, compiled for this processor; see decoding/kernels/."""

import ctypes
import functools

import torch

import cpuaccel
from cpuaccel_plugins.decoding.library import KernelsError, kernels
from cpuaccel_plugins.decoding.structures import CHeads, cached

LANES = 16
"""Of the longest vectors: head sizes are multiples of it."""

BFLOAT16_PRODUCTS = "avx512_bf16"
"""Processor flag with which the kernel multiplies bfloat16."""


@functools.cache
def kernel_library() -> ctypes.CDLL | None:
    """The compiled kernels; None if there is no compiler for them."""
    try:
        return kernels()
    except KernelsError:
        return None


def multiplies_bfloat16() -> bool:
    """Whether the kernel's products in bfloat16 are any faster than in float32."""
    return BFLOAT16_PRODUCTS in cpuaccel.host().isa


def attend_to_all(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    out: torch.Tensor,
    *,
    narrow: bool,
) -> bool:
    """Attend to all keys; False if the kernel doesn't compute these operands.

    Args:
        query: and ``key`` and ``value``, shape (batch, heads, tokens, head size).
        key: see above.
        value: see above.
        scale: factor on the scores.
        out: gets the result, shape (batch, queries, heads x head size), contiguous.
        narrow: multiply in bfloat16. Sums and the softmax are in float32 in any case.
    """
    library, operands = kernel_library(), (query, key, value)
    batch, heads, _, size = query.shape
    if library is None or size % LANES or not key.shape[2]:
        return False
    if any(o.dtype is not torch.float32 or o.stride(3) != 1 for o in operands):
        return False
    library.cpuaccel_attend_to_all(
        ctypes.byref(CHeads(heads, heads, size, scale)),
        *(ctypes.byref(cached(operand)) for operand in operands),
        *(batch, out.data_ptr(), narrow),
    )
    return True
