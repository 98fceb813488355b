"""The kernels in kernels/, compiled for this processor when they are first needed."""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

import cpuaccel
from cpuaccel_plugins.decoding.structures import NUMBER, POINTER

logger = logging.getLogger("cpuaccel")

SOURCES = Path(__file__).with_name("kernels")

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-shared", "-fPIC"),
)
"""Not -ffast-math: a library linked with it makes the whole process flush denormals to zero."""

COMPILE_SECONDS = 120

ARGUMENTS = {
    "cpuaccel_linear": (*[POINTER] * 3, *[NUMBER] * 2),
    "cpuaccel_linear_of_many": (*[POINTER] * 3, *[NUMBER] * 2),
    "cpuaccel_pack": (POINTER, NUMBER, POINTER, *[NUMBER] * 3),
    "cpuaccel_unpack": (POINTER, NUMBER, POINTER, *[NUMBER] * 3),
    "cpuaccel_project": (*[POINTER] * 2, *[NUMBER] * 2, *[POINTER] * 5),
    "cpuaccel_attend": (*[POINTER] * 5, *[NUMBER] * 2, *[POINTER] * 2, NUMBER),
    "cpuaccel_attend_to_all": (*[POINTER] * 4, NUMBER, POINTER, NUMBER),
    "cpuaccel_feed_forward": (*[POINTER] * 3, *[NUMBER] * 2),
    "cpuaccel_layers": (
        *(POINTER, NUMBER, *[POINTER] * 3),
        *(*[NUMBER] * 3, *[POINTER] * 4),
    ),
    "cpuaccel_experts": (
        POINTER,
        *[NUMBER] * 2,
        *[POINTER] * 2,
        *[NUMBER] * 2,
        *[POINTER] * 2,
        NUMBER,
    ),
}
"""The types of each function's arguments; none of these returns anything."""

NUMBERS = {
    "cpuaccel_threads": (),
    "cpuaccel_panel": (),
    "cpuaccel_packed_bytes": (NUMBER, NUMBER, NUMBER),
}
"""The types of the arguments of each function that returns a number."""


class KernelsError(Exception):
    """The kernels can't be compiled or used here; the message says why."""


@functools.cache
def kernels() -> ctypes.CDLL:
    """Load the kernels; compile them if this source was never compiled for this processor.

    Raises:
        KernelsError: there is no compiler, it failed, or its OpenMP is not torch's.
    """
    host = cpuaccel.host()
    sources = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    identity = (sources, FLAGS, host.processor, sorted(host.isa))
    key = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    path = cpuaccel.cache_folder("kernels") / f"decoding-{key}.so"
    if not path.exists():
        _compile(path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsError(f"{path} can't be loaded: {error}") from error
    for name, types in (ARGUMENTS | NUMBERS).items():
        function = getattr(library, name)  # by [] it would be another object each time
        function.argtypes = types
        function.restype = NUMBER if name in NUMBERS else None
    if library.cpuaccel_threads() != torch.get_num_threads():
        # Two pools of threads on the same cores wait for each other.
        raise KernelsError("the compiler's OpenMP is not the one that torch uses")
    return library


def _compile(path: Path) -> None:
    """Compile to a temporary file and rename it, for processes that start side by side."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise KernelsError("there is no C++ compiler (g++ or clang++)")
    logger.info("compiling kernels for generation with %s, once for this processor", compiler)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            compiled = Path(folder) / path.name
            command = [compiler, *FLAGS, str(SOURCES / "layers.cpp"), "-o", str(compiled)]
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
            )
            if done.returncode != 0:
                raise KernelsError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
            compiled.replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsError(f"{compiler} can't compile to {path}: {error}") from error
