"""Memory during a build: return free memory to the system, move weights into huge pages."""

import ctypes
import functools
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

mkldnn = torch.ops.mkldnn

_MADV_COLLAPSE = 25
"""Linux 6.1 and later: moves memory into huge pages at once; its contents and address stay."""

_HUGE_PAGE_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def trim_heap() -> None:
    """Return free memory to the system: glibc keeps that of probes and of released weights."""
    library = _c_library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def use_huge_pages(weights: Iterable[torch.Tensor]) -> int:
    """Move weights, also those packed for oneDNN, into huge pages; return the bytes moved.

    A call reads all weights of a model, in more pages of 4 KiB than a processor has TLB entries
    for: the misses took 1 to 3% of BERT-base's time, and a fifth of a decoder's steps on a virtual
    machine. Pages that are mapped from a file or shared with other memory stay.
    """
    library = _c_library()
    try:
        size = int(_HUGE_PAGE_SIZE.read_text())
    except OSError:
        return 0
    if library is None:
        return 0
    # One page at a time: the system stops at the first that it can't move.
    pages = (page for pages in _whole_pages(weights, size) for page in pages)
    return sum(size for page in pages if library.madvise(page, size, _MADV_COLLAPSE) == 0)


def _whole_pages(weights: Iterable[torch.Tensor], size: int) -> list[range]:
    """The addresses of whole huge pages within a weight, or within several side by side."""
    spans: list[tuple[int, int]] = []
    for begin, end in sorted(map(_span, weights)):
        if spans and begin - spans[-1][1] < size // 2:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return [range(-(-begin // size) * size, end // size * size, size) for begin, end in spans]


def _span(weight: torch.Tensor) -> tuple[int, int]:
    """The addresses of a weight's first byte, and of that after its last one."""
    if weight.is_mkldnn:
        begin: int = mkldnn.data_ptr(weight)
        return begin, begin + int(mkldnn._nbytes(weight))
    return weight.data_ptr(), weight.data_ptr() + weight.nbytes


@functools.cache
def _c_library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library
