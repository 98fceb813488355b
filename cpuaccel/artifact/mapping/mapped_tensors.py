"""Tensors in memory that is mapped from a file: read when needed, shared by all processes.

What is written to them later is this process's own, as it would be in other memory.
"""

import io
import mmap
import os
from pathlib import Path

import safetensors
import torch

from cpuaccel.artifact.tensors import read_tensors

_OPEN_FILES = Path("/proc/self/fd")


def map_safetensors(file: io.BufferedReader) -> dict[str, torch.Tensor]:
    """Map a safetensors file; where the system has no names for open files, read it.

    Raises:
        ValueError: it is not one.
    """
    path = _OPEN_FILES / str(file.fileno())
    if not path.exists():
        return read_tensors(file.read())
    try:
        with safetensors.safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # the type for a dtype that this torch lacks is not documented
        raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from None


def map_file(file: io.BufferedReader) -> torch.Tensor:
    """Map a file as bytes, uint8, of shape (size,)."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return torch.frombuffer(memory, dtype=torch.uint8)
