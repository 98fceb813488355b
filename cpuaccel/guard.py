"""Keeping torch's and the process's global settings as they were."""

import logging
import os
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
    "environment variables": _Setting(lambda: dict(os.environ), _write_environment),
}


@contextmanager
def settings_kept() -> Iterator[list[str]]:
    """Put global settings back on leaving: what a backend changes must not outlive its step.

    Yields:
        A list that on leaving holds the names of the settings that had been changed.
    """
    before = {name: setting.read() for name, setting in _SETTINGS.items()}
    random_state = torch.random.get_rng_state()
    restored: list[str] = []
    try:
        yield restored
    finally:
        for name, setting in _SETTINGS.items():
            if setting.read() != before[name]:
                setting.write(before[name])
                restored.append(name)
        torch.random.set_rng_state(random_state)
