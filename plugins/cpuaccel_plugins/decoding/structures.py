"""The structures that kernels/ takes, and how to make them of tensors."""

import ctypes
from typing import ClassVar

import torch

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""The numbers of ``Type``."""

FOUR_BITS = 3
"""The number of ``FourBits``."""

POINTER, NUMBER, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class CLinear(ctypes.Structure):
    """``Linear``."""

    _fields_: ClassVar = [
        *((name, POINTER) for name in ("weight", "bias")),
        *((name, NUMBER) for name in ("outputs", "inputs", "type")),
    ]


class CNorm(ctypes.Structure):
    """``Norm``."""

    _fields_: ClassVar = [("weight", POINTER), ("size", NUMBER), ("epsilon", REAL)]


class CProjections(ctypes.Structure):
    """``Projections``."""

    _fields_: ClassVar = [
        ("before", CNorm),
        *((name, CLinear) for name in ("query", "key", "value")),
        *((name, CNorm) for name in ("query_norm", "key_norm")),
        ("head_size", NUMBER),
    ]


class CAttention(ctypes.Structure):
    """``Attention``."""

    _fields_: ClassVar = [
        *(("output", CLinear), ("after", CNorm)),
        *((name, NUMBER) for name in ("heads", "key_heads", "head_size")),
        ("scaling", REAL),
    ]


class CFeedForward(ctypes.Structure):
    """``FeedForward``."""

    _fields_: ClassVar = [
        ("before", CNorm),
        *((name, CLinear) for name in ("gate", "up", "down")),
        *(("after", CNorm), ("activation", NUMBER)),
    ]


class CLayer(ctypes.Structure):
    """``Layer``."""

    _fields_: ClassVar = [
        ("projections", ctypes.POINTER(CProjections)),
        ("attention", ctypes.POINTER(CAttention)),
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


def cached(tensor: torch.Tensor) -> CCached:
    """Describe keys or values of shape (batch, heads, tokens, head size), the last contiguous."""
    batch, head, token, _ = tensor.stride()
    return CCached(tensor.data_ptr(), TYPES[tensor.dtype], batch, head, token, tensor.shape[2])
