"""Packed weights in huge pages, where the system has them.

All of a model's weights are read in every call. In pages of 4 KiB there are more of them than a
processor remembers the places of, and looking these up again took 1 to 3% of BERT-base's time.
"""

import ctypes
import functools
from collections.abc import Iterable
from pathlib import Path

import torch

from cpuaccel_plugins.onednn.linear.linears import mkldnn

_COLLAPSE = 25
"""Linux's ``MADV_COLLAPSE``, from 6.1 on: the same memory, in huge pages at once."""

_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def gather(weights: Iterable[torch.Tensor]) -> int:
    """Ask the system to hold packed weights in huge pages; their contents and addresses stay.

    Args:
        weights: packed ones.

    Returns:
        Bytes that are in huge pages now: none where the system has none, or does not do it when it
        is asked; never those at the ends of a weight that share a huge page with something else.
    """
    try:
        size = int(_SIZE.read_text())
    except OSError:
        return 0
    # One at a time: between weights some page may not be theirs, and the system stops at it.
    pages = (page for pages in _pages(weights, size) for page in pages)
    return sum(size for page in pages if _libc().madvise(page, size, _COLLAPSE) == 0)


def _pages(weights: Iterable[torch.Tensor], size: int) -> list[range]:
    """The whole huge pages that lie within weights, or within several that lie side by side."""
    spans: list[tuple[int, int]] = []
    for weight in sorted(weights, key=mkldnn.data_ptr):
        begin = mkldnn.data_ptr(weight)
        end = begin + mkldnn._nbytes(weight)
        if spans and begin - spans[-1][1] < size // 2:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return [range(-(-begin // size) * size, end // size * size, size) for begin, end in spans]


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library
