"""Weights in a layout of oneDNN's or MKL's as bytes, and such weights in memory of ours.

Only Inductor's ahead-of-time compiler makes tensors of such memory, by a C function of torch's.
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from cpuaccel import BackendError

mkldnn = torch.ops.mkldnn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

_CREATE = "aoti_torch_create_tensor_from_blob_v2"


@dataclass(frozen=True)
class Opaque:
    """A packed weight.

    Attributes:
        shape: as torch sees it.
        dtype: a name among ``DTYPES``.
        layout: oneDNN's description of the memory, in hexadecimal digits.
    """

    shape: tuple[int, ...]
    dtype: str
    layout: str


def describe_opaque(weight: torch.Tensor) -> Opaque:
    """Describe a packed weight, for this version of torch and this processor."""
    (dtype,) = (name for name, one in DTYPES.items() if one is weight.dtype)
    layout = bytes(mkldnn._get_mkldnn_serialized_md(weight).tolist())
    return Opaque(tuple(weight.shape), dtype, layout.hex())


def memory_of(weight: torch.Tensor) -> torch.Tensor:
    """The bytes of a packed weight, uint8, which are valid as long as the weight exists."""
    size = int(mkldnn._nbytes(weight))
    memory = (ctypes.c_ubyte * size).from_address(mkldnn.data_ptr(weight))
    return torch.frombuffer(memory, dtype=torch.uint8)


def can_restore() -> bool:
    """Whether this torch can make packed weights of memory."""
    return _library() is not None


def restore_opaque(weight: Opaque, memory: torch.Tensor) -> torch.Tensor:
    """Make a packed weight that reads this memory, which must exist longer than the weight.

    Raises:
        BackendError: torch can't, or the memory has another size than the layout.
    """
    library = _library()
    if library is None:
        raise BackendError("this torch can't make packed weights of memory", "Use the torch of it")
    dimensions, layout = len(weight.shape), bytes.fromhex(weight.layout)
    numbers = ctypes.c_int64 * dimensions
    strides = torch.empty(weight.shape, device="meta").stride()
    handle = ctypes.c_void_p()
    failed = library[_CREATE](
        ctypes.c_void_p(memory.data_ptr()),
        ctypes.c_int64(dimensions),
        numbers(*weight.shape),
        numbers(*strides),
        ctypes.c_int64(0),
        library[f"aoti_torch_dtype_{weight.dtype}"](),
        library.aoti_torch_device_type_cpu(),
        ctypes.c_int32(-1),
        ctypes.byref(handle),
        library.aoti_torch_layout__mkldnn(),
        layout,
        ctypes.c_int64(len(layout)),
    )
    if failed or not handle.value:
        raise BackendError("torch refuses the layout of a packed weight", "Save it again")
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new_capsule(handle.value, None, None)
    made: torch.Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(capsule)
    if int(mkldnn._nbytes(made)) != memory.numel():
        raise BackendError(
            f"a packed weight must have {int(mkldnn._nbytes(made))} bytes, got {memory.numel()}",
            "Save it again",
        )
    return made


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    stealing = hasattr(getattr(torch._C, "_aoti", None), "alloc_tensor_by_stealing_from_void_ptr")
    if not stealing or not hasattr(mkldnn, "_get_mkldnn_serialized_md") or not path.exists():
        return None
    library = ctypes.CDLL(str(path))
    return library if hasattr(library, _CREATE) else None
