"""Where in the code of a model something happens."""

import linecache
import os
import sys

import torch

TORCH = os.path.dirname(torch.__file__) + os.sep
_CPUACCEL = os.path.dirname(os.path.dirname(__file__)) + os.sep


def describe_place(file: str, line: int) -> str:
    """Return file, line and source, such as ``bert/modeling_bert.py:12 (if mask.any():)``."""
    source = linecache.getline(file, line).strip()
    shown = os.sep.join(file.split(os.sep)[-2:])
    return f"{shown}:{line} ({source})" if source else f"{shown}:{line}"


def calling_place() -> str:
    """Describe the innermost caller outside torch and cpuaccel."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith((TORCH, _CPUACCEL, "<")):
        if frame.f_back is None:
            return "a module of torch"
        frame = frame.f_back
    return describe_place(frame.f_code.co_filename, frame.f_lineno)
