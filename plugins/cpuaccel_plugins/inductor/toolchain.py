"""The C++ compiler and the headers that Inductor needs."""

import os
import shlex
import shutil
import sysconfig
from pathlib import Path

from cpuaccel import Verdict


def toolchain() -> Verdict:
    """Check that C++ kernels can be compiled here."""
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        return Verdict.no(
            f"Inductor compiles C++ kernels, but {compiler[0]} is not on PATH",
            "Install a C++ compiler (on Debian: apt install g++), or set CXX",
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return Verdict.no(
            "Inductor compiles C++ kernels, but Python's header Python.h is missing",
            "Install Python's development files (on Debian: apt install python3-dev)",
        )
    return Verdict.yes()
