"""Restoring the global settings of torch and of the process."""

import ctypes
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch


@dataclass(frozen=True)
class _Setting:
    """How to read and write a setting; each has its own type."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _write_logging(state: tuple[list[logging.Handler], int]) -> None:
    logging.root.handlers[:], logging.root.level = state


def _write_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _compiler(module: str) -> _Setting:
    """The settings in a configuration module of torch.compile; None until it is imported.

    Importing it here would take a second. A module that a step imports first has only defaults.
    """

    def read() -> dict[str, object] | None:
        copy = getattr(sys.modules.get(module), "get_config_copy", None)  # from torch 2.3 on
        return copy and copy()

    def write(settings: dict[str, object]) -> None:
        now = read() or {}
        for name, value in settings.items():
            if now[name] != value:
                setattr(sys.modules[module], name, value)

    return _Setting(read, write)


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_: ClassVar = [
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    ]


def _read_signal_stack() -> tuple[int | None, int, int] | None:
    """The memory on which this thread's signal handlers run.

    OpenVINO's plugin for CPUs replaces it. Where several are unloaded, in another order than they
    were loaded, it leaves memory that was freed: the next signal ends the process, or overwrites
    what has been allocated there since.
    """
    if sys.platform != "linux":
        return None
    stack = _SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.address, stack.flags, stack.size


def _write_signal_stack(stack: tuple[int | None, int, int]) -> None:
    ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(*stack)), None)


_SETTINGS = {
    "signal stack": _Setting(_read_signal_stack, _write_signal_stack),
    "torch threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "torch default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "torch grad mode": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch float32 matmul precision": _Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "logging's root handlers": _Setting(  # importing IPEX calls logging.basicConfig
        lambda: (logging.root.handlers[:], logging.root.level), _write_logging
    ),
    "torch deterministic algorithms": _Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "working directory": _Setting(os.getcwd, os.chdir),
    "Dynamo's settings": _compiler("torch._dynamo.config"),
    "Inductor's settings": _compiler("torch._inductor.config"),
    "environment variables": _Setting(lambda: dict(os.environ), _write_environment),
}


@contextmanager
def restored_random_state() -> Iterator[None]:
    """Restore the state of the random generators: building must not draw from the caller's."""
    states = torch.random.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        torch.random.set_rng_state(states[0])
        random.setstate(states[1])


@contextmanager
def restored_settings() -> Iterator[list[str]]:
    """Restore global settings on exit; the yielded list then has the names of the changed ones."""
    before = {name: setting.read() for name, setting in _SETTINGS.items()}
    restored: list[str] = []
    try:
        yield restored
    finally:
        for name, setting in _SETTINGS.items():
            if before[name] is not None and setting.read() != before[name]:
                setting.write(before[name])
                restored.append(name)
