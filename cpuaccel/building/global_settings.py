"""Restoring the global settings of torch and of the process."""

import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Setting:
    read: Callable[[], object]
    write: Callable[[object], object]


def _write_logging(state: object) -> None:
    assert isinstance(state, tuple)
    handlers, logging.root.level = state
    logging.root.handlers[:] = handlers


def _write_environment(environment: object) -> None:
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)


def _compiler(module: str) -> _Setting:
    """The settings in a configuration module of torch.compile, if it is imported already.

    Importing it here would cost a second. A module that a step imports first holds only defaults.
    """

    def read() -> object:
        config = sys.modules.get(module)
        copied = getattr(config, "get_config_copy", None)  # from torch 2.3 on
        return None if copied is None else copied()

    def write(settings: object) -> None:
        if isinstance(settings, dict):
            now = read()
            assert isinstance(now, dict)
            for name, value in settings.items():
                if now[name] != value:
                    setattr(sys.modules[module], name, value)

    return _Setting(read, write)


_SETTINGS = {
    "torch threads": _Setting(torch.get_num_threads, torch.set_num_threads),  # type: ignore[arg-type]
    "torch default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),  # type: ignore[arg-type]
    "torch grad mode": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),  # type: ignore[arg-type]
    "torch float32 matmul precision": _Setting(
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,  # type: ignore[arg-type]
    ),
    "logging's root handlers": _Setting(  # importing IPEX calls logging.basicConfig
        lambda: (logging.root.handlers[:], logging.root.level), _write_logging
    ),
    "torch deterministic algorithms": _Setting(
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,  # type: ignore[arg-type]
    ),
    "working directory": _Setting(os.getcwd, os.chdir),  # type: ignore[arg-type]
    "Dynamo's settings": _compiler("torch._dynamo.config"),
    "Inductor's settings": _compiler("torch._inductor.config"),
    "environment variables": _Setting(lambda: dict(os.environ), _write_environment),
}


@contextmanager
def restored_settings() -> Iterator[list[str]]:
    """Restore global settings on exit: changes by a backend must not outlive its step.

    Yields:
        A list that holds the names of the changed settings after the exit.
    """
    before = {name: setting.read() for name, setting in _SETTINGS.items()}
    random_states = torch.random.get_rng_state(), random.getstate()
    restored: list[str] = []
    try:
        yield restored
    finally:
        for name, setting in _SETTINGS.items():
            if before[name] is not None and setting.read() != before[name]:
                setting.write(before[name])
                restored.append(name)
        torch.random.set_rng_state(random_states[0])
        random.setstate(random_states[1])
