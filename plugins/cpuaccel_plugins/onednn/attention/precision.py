"""Float32 matrix products through oneDNN, for as long as attention lasts.

The setting is the process's. It is put back when the last of the calls under way has ended, and
never where it would make the products less exact: on processors that would compute them in
bfloat16.
"""

import functools
import threading
from contextlib import AbstractContextManager, nullcontext

import torch

THROUGH_ONEDNN = "medium"

EXACT = 1e-5
"""Largest relative error of a float32 product that is one; in bfloat16 it would be near 1e-2."""


@functools.cache
def fast_products() -> AbstractContextManager[None]:
    """Lets ``bmm`` of float32 run through oneDNN inside of it, where that is exact.

    Any number of threads may be inside at once. If the caller's own code sets another precision
    meanwhile, that one stays.
    """
    return _Inside() if stays_exact() else nullcontext()


class _Inside(AbstractContextManager[None]):
    """Entered and left in every layer, with cold caches: kept as short as it can be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = ""

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision(THROUGH_ONEDNN)
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if not self._count and torch.get_float32_matmul_precision() == THROUGH_ONEDNN:
                torch.set_float32_matmul_precision(self._before)


@functools.cache
def stays_exact() -> bool:
    """Whether products through oneDNN are still float32's here; found by computing one."""
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 1, 64, 256, generator=generator) - 0.5
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(THROUGH_ONEDNN)
    try:
        found = torch.bmm(one, other.transpose(1, 2)).double()
    finally:
        torch.set_float32_matmul_precision(before)
    exact = torch.bmm(one.double(), other.double().transpose(1, 2))
    return bool((found - exact).abs().max() <= EXACT * exact.abs().max())
