"""The structures that kernels/ takes, and how to make them of tensors."""

import ctypes
from typing import ClassVar

import torch

FLOATS = {torch.float32: 0, torch.bfloat16: 1}
"""The numbers of ``Type`` of what is computed."""

TYPES = {**FLOATS, torch.int8: 2}
"""The numbers of ``Type``."""

FOUR_BITS = 3
"""The number of ``INT4``."""

POINTER, NUMBER, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class CLinear(ctypes.Structure):
    """``Linear``."""

    _fields_: ClassVar = [
        *((name, POINTER) for name in ("weight", "bias")),
        *((name, NUMBER) for name in ("outputs", "inputs", "type")),
    ]


class CNorm(ctypes.Structure):
    """``Norm``."""

    _fields_: ClassVar = [
        *(("weight", POINTER), ("bias", POINTER)),
        *(("size", NUMBER), ("epsilon", REAL)),
    ]


class CProjections(ctypes.Structure):
    """``Projections``."""

    _fields_: ClassVar = [
        ("before", CNorm),
        *((name, CLinear) for name in ("query", "key", "value")),
        *((name, CNorm) for name in ("query_norm", "key_norm")),
        ("head_size", NUMBER),
    ]


class CHeads(ctypes.Structure):
    """``Heads``."""

    _fields_: ClassVar = [
        *((name, NUMBER) for name in ("heads", "key_heads", "head_size")),
        ("scaling", REAL),
    ]


class CAttention(ctypes.Structure):
    """``Attention``."""

    _fields_: ClassVar = [
        *(("output", CLinear), ("after", CNorm), ("closing", CNorm)),
        ("heads", CHeads),
    ]


class CFeedForward(ctypes.Structure):
    """``FeedForward``."""

    _fields_: ClassVar = [
        ("before", CNorm),
        *((name, CLinear) for name in ("gate", "up", "down")),
        *(("after", CNorm), ("closing", CNorm), ("activation", NUMBER)),
    ]


class CLayer(ctypes.Structure):
    """``Layer``."""

    _fields_: ClassVar = [
        ("projections", ctypes.POINTER(CProjections)),
        ("attention", ctypes.POINTER(CAttention)),
        ("source_projections", ctypes.POINTER(CProjections)),
        ("source_attention", ctypes.POINTER(CAttention)),
        ("feed_forward", ctypes.POINTER(CFeedForward)),
    ]


class CExpert(ctypes.Structure):
    """``Expert``."""

    _fields_: ClassVar = [(name, CLinear) for name in ("gate", "up", "down")]


class CCached(ctypes.Structure):
    """``Cached``."""

    _fields_: ClassVar = [
        *(("data", POINTER), ("type", NUMBER)),
        *((f"{name}_stride", NUMBER) for name in ("batch", "head", "token")),
        ("tokens", NUMBER),
    ]


class CSeen(ctypes.Structure):
    """``Seen``."""

    _fields_: ClassVar = [
        *(("mask", POINTER), ("mask_row_stride", NUMBER), ("mask_token_stride", NUMBER)),
        *(("bias", POINTER), ("bias_head_stride", NUMBER), ("bias_token_stride", NUMBER)),
        *(("places", POINTER), ("is_causal", NUMBER)),
    ]


NO_NORM = CNorm(None, None, 0, 0.0)


def cached(tensor: torch.Tensor) -> CCached:
    """Describe keys or values of shape (batch, heads, tokens, head size), the last contiguous."""
    batch, head, token, _ = tensor.stride()
    return CCached(tensor.data_ptr(), TYPES[tensor.dtype], batch, head, token, tensor.shape[2])


def seen(
    mask: torch.Tensor | None,
    keys: int,
    *,
    bias: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
    is_causal: bool = True,
) -> CSeen:
    """Describe what tokens see.

    Args:
        mask: of Booleans, shape (rows or 1, 1, tokens, keys); None if ``is_causal`` says it.
        keys: their number.
        bias: added to the scores, float32, shape (1, heads, tokens, keys).
        places: of the rows' keys in the batch of the cache, int64; None for each its own.
        is_causal: without a mask, a token doesn't see those after it.

    Raises:
        ValueError: the mask or the bias has fewer keys.
    """
    described = CSeen(is_causal=is_causal)
    for name, tensor in (("mask", mask), ("bias", bias)):
        if tensor is not None and tensor.shape[-1] < keys:
            raise ValueError(f"the {name} has {tensor.shape[-1]} keys, the cache {keys}")
    if mask is not None:
        row, _, token, _ = mask.stride()
        described.mask, described.mask_token_stride = mask.data_ptr(), token
        described.mask_row_stride = 0 if len(mask) == 1 else row
    if bias is not None:
        _, described.bias_head_stride, described.bias_token_stride, _ = bias.stride()
        described.bias = bias.data_ptr()
    if places is not None:
        described.places = places.data_ptr()
    return described
