"""Float32 matrix products through oneDNN while attention runs.

That takes a setting of the whole process. It is restored when the last concurrent call leaves, and
not changed on processors that would compute the products in bfloat16.
"""

import functools
import threading
from contextlib import AbstractContextManager, nullcontext

import torch

PRECISION = "medium"
"""The ``torch.set_float32_matmul_precision`` with which torch uses oneDNN."""

TOLERANCE = 1e-5
"""Largest relative error of a product in float32; in bfloat16 it is near 1e-2."""


@functools.cache
def onednn_matmul() -> AbstractContextManager[None]:
    """Return a context that runs ``bmm`` of float32 through oneDNN, if exact; threads share it.

    If the caller's own code sets another precision meanwhile, that one stays.
    """
    return _OneDnnMatmul() if is_exact() else nullcontext()


class _OneDnnMatmul(AbstractContextManager[None]):
    """Short, because every layer enters and leaves it with cold caches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = ""

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision(PRECISION)
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if not self._count and torch.get_float32_matmul_precision() == PRECISION:
                torch.set_float32_matmul_precision(self._before)


@functools.cache
def is_exact() -> bool:
    """Whether oneDNN computes float32 products in float32 here; computes one to find out."""
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 1, 64, 256, generator=generator) - 0.5
    with _OneDnnMatmul():
        product = torch.bmm(one, other.transpose(1, 2)).double()
    exact = torch.bmm(one.double(), other.double().transpose(1, 2))
    return bool((product - exact).abs().max() <= TOLERANCE * exact.abs().max())
