"""The structures that kernels.cpp takes, and how to make them of tensors."""

import ctypes
from typing import ClassVar

import torch

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class CLinear(ctypes.Structure):
    """``Linear``."""

    _fields_: ClassVar = [
        ("weight", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("type", ctypes.c_int64),
    ]


class CNorm(ctypes.Structure):
    """``Norm``."""

    _fields_: ClassVar = [
        ("weight", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("epsilon", ctypes.c_double),
    ]


class CProjections(ctypes.Structure):
    """``Projections``."""

    _fields_: ClassVar = [
        ("before", CNorm),
        ("query", CLinear),
        ("key", CLinear),
        ("value", CLinear),
        ("query_norm", CNorm),
        ("key_norm", CNorm),
        ("head_size", ctypes.c_int64),
    ]


class CAttention(ctypes.Structure):
    """``Attention``."""

    _fields_: ClassVar = [
        ("output", CLinear),
        ("after", CNorm),
        ("heads", ctypes.c_int64),
        ("key_heads", ctypes.c_int64),
        ("head_size", ctypes.c_int64),
        ("scaling", ctypes.c_double),
    ]


class CFeedForward(ctypes.Structure):
    """``FeedForward``."""

    _fields_: ClassVar = [
        ("before", CNorm),
        ("gate", CLinear),
        ("up", CLinear),
        ("down", CLinear),
        ("after", CNorm),
        ("activation", ctypes.c_int64),
    ]


class CCached(ctypes.Structure):
    """``Cached``."""

    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int64),
        ("batch_stride", ctypes.c_int64),
        ("head_stride", ctypes.c_int64),
        ("token_stride", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
    ]


def cached(tensor: torch.Tensor) -> CCached:
    """Describe keys or values of shape (batch, heads, tokens, head size), the last contiguous."""
    batch, head, token, _ = tensor.stride()
    return CCached(tensor.data_ptr(), TYPES[tensor.dtype], batch, head, token, tensor.shape[2])
