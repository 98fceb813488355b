"""Memory that is mapped from files: what is in it can be dropped, and is read again when needed."""

import ctypes
import functools
import mmap
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

PRESENT, SWAPPED, OF_FILE = 63, 62, 61
"""Bits of an entry of Linux's page map. A page that was written to no longer is the file's."""

ENTRY_BYTES = 8


def mapped(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Those tensors that are in memory which is mapped from a file, such as a checkpoint's."""
    if sys.platform != "linux":
        return []
    spans = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            first, last = span.split("-")
            spans.append((int(first, 16), int(last, 16)))
    return [
        tensor
        for tensor in tensors
        if tensor.numel()
        and tensor.is_contiguous()
        and any(first <= tensor.data_ptr() and _end(tensor) <= last for first, last in spans)
    ]


def drop_pages(tensor: torch.Tensor) -> bool:
    """Drop the pages of a tensor that is ``mapped``: the system reads them again when needed.

    Returns:
        False if the tensor was written to since the file was mapped: then its pages stay.
    """
    size = mmap.PAGESIZE
    begin = -(-tensor.data_ptr() // size)  # pages that it shares with other tensors stay
    end = _end(tensor) // size
    if begin >= end:
        return True
    try:
        unchanged = _are_of_file(begin, end)
    except OSError:  # the system hides its page map
        return False
    if not unchanged:
        return False
    return bool(_c_library().madvise(begin * size, (end - begin) * size, mmap.MADV_DONTNEED) == 0)


def move_to_file(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    """Write a contiguous tensor to a file without a name, and return it mapped from there.

    The file's space is free again when nothing refers to the memory any more.

    Raises:
        OSError: the file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
        file.flush()
        # What is written to it later is this process's own, as it would be in other memory.
        memory = mmap.mmap(file.fileno(), tensor.nbytes, access=mmap.ACCESS_COPY)
    return torch.frombuffer(memory, dtype=torch.uint8).view(tensor.dtype).view(tensor.shape)


def _end(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() + tensor.numel() * tensor.element_size()


def _are_of_file(begin: int, end: int) -> bool:
    """Whether all pages in memory, of those with numbers from begin to end, are the file's."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as entries:
        entries.seek(ENTRY_BYTES * begin)
        read = bytearray(entries.read(ENTRY_BYTES * (end - begin)))
    if len(read) != ENTRY_BYTES * (end - begin):
        return False
    bits = torch.frombuffer(read, dtype=torch.int64)
    somewhere = (bits >> PRESENT & 1) | (bits >> SWAPPED & 1)
    return not bool((somewhere & ~(bits >> OF_FILE) & 1).any())


@functools.cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library
