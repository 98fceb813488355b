"""Inputs and outputs between the processes of a pool: bytes, and memory that is handed over."""

import io
import mmap
import os
import pickle
from collections.abc import Sequence
from typing import Any

import torch

ALIGNMENT = 64
"""Bytes to which the contents of a tensor are aligned."""

Buffers = list[pickle.PickleBuffer]


def pack(value: object, apart: Buffers | None = None) -> bytes:
    """Return a value with its tensors as bytes.

    Unlike multiprocessing with torch, this needs no file in ``/dev/shm``, of which containers have
    little, and unlike pickle alone it copies only what a tensor shows of its storage.

    Args:
        value: what to pickle.
        apart: gets the contents of large objects, which are then not among the bytes, nor copied.

    Raises:
        Exception: whatever pickling raises.
    """
    buffer = io.BytesIO()
    callback = None if apart is None else apart.append
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL, buffer_callback=callback).dump(value)
    return buffer.getvalue()


def unpack(data: bytes, apart: Sequence[memoryview] = ()) -> Any:
    """Return the value; unpickling runs code: from processes of one's own only."""
    return pickle.loads(data, buffers=apart)  # noqa: S301


def write_memory(apart: Buffers) -> tuple[int, tuple[int, ...]]:
    """Copy buffers into memory that another process can map.

    Returns:
        A descriptor of the memory, which the caller closes, and the size of each buffer in bytes.

    Raises:
        OSError: there is not enough memory.
    """
    descriptor = os.memfd_create("cpuaccel", os.MFD_CLOEXEC)
    sizes = []
    try:
        offset = 0
        for buffer in apart:
            with buffer.raw() as contents:
                written = 0
                while written < len(contents):
                    written += os.pwrite(descriptor, contents[written:], offset + written)
                sizes.append(len(contents))
            offset = _aligned(offset + sizes[-1])
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, tuple(sizes)


def map_memory(descriptor: int, sizes: Sequence[int]) -> list[memoryview]:
    """Map what ``write_memory`` wrote; what is written to it is this process's own."""
    total = 0
    for size in sizes:
        total = _aligned(total) + size
    if not total:
        return [memoryview(bytearray()) for _ in sizes]
    memory = memoryview(mmap.mmap(descriptor, total, access=mmap.ACCESS_COPY))
    views, offset = [], 0
    for size in sizes:
        views.append(memory[offset : offset + size])
        offset = _aligned(offset + size)
    return views


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if type(value) is not torch.Tensor or value.layout is not torch.strided:
            return NotImplemented
        if value.device.type != "cpu" or value.requires_grad or value.is_quantized:
            return NotImplemented
        plain = value.resolve_conj().resolve_neg()
        data = plain.contiguous().flatten().view(torch.uint8).numpy()
        return _restore, (data, value.dtype, value.shape)


def _restore(data: Any, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(data).view(dtype).reshape(shape)
