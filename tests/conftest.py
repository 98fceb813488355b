import functools
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

import cpuaccel
from tests.patience import slowdown

pytest_plugins = ["tests.required"]

Offer = Callable[..., None]
Python = Callable[..., subprocess.CompletedProcess[str]]


# A background process may have SIGINT ignored, which children inherit; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Use the same examples on every run, without time limits, for busy machines.
settings.register_profile(
    "cpuaccel", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("cpuaccel")

# Children print tables; a narrow terminal would wrap them.
os.environ["COLUMNS"] = "200"

# IPEX imports Inductor, which would start processes for compiling that import torch.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stretch every test's timeout, which is there to end tests that hang."""
    factor = slowdown()
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * factor), append=False)


def pytest_collection_finish() -> None:
    """Collect garbage rarely, and never what was imported: exports make millions of objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True)
def _same_conditions() -> Iterator[None]:
    """Use the same random numbers in each run, and one thread, since such small models wait."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Plugin:
    """A plugin with hooks."""

    def __init__(self, **hooks: Callable[..., object]) -> None:
        for name, hook in hooks.items():
            setattr(self, name, cpuaccel.hookimpl(hook))


@pytest.fixture
def offer() -> Iterator[Offer]:
    """Register backend classes through a plugin, for the duration of the test."""
    host = cpuaccel.plugin_host()
    plugins: list[object] = []

    def register(*backends: type[cpuaccel.Backend[cpuaccel.Options]]) -> None:
        plugin = Plugin(cpuaccel_backends=lambda: list(backends))
        host.register(plugin, f"the test's plugin {len(plugins) + 1}")
        plugins.append(plugin)

    yield register
    for plugin in plugins:
        host.unregister(plugin)


@pytest.fixture
def observe() -> Iterator[Callable[..., None]]:
    """Register hooks that observe, for the duration of the test."""
    host = cpuaccel.plugin_host()
    plugins: list[object] = []

    def register(**hooks: Callable[..., object]) -> None:
        plugin = Plugin(**hooks)
        host.register(plugin, f"observer {len(plugins) + 1}")
        plugins.append(plugin)

    yield register
    for plugin in plugins:
        host.unregister(plugin)


@pytest.fixture(scope="session")
def python() -> Python:
    """Run Python code in a new process; by default its failure fails the test."""
    return functools.partial(_run_python)


def _run_python(
    code: str, *arguments: str, path: tuple[Path, ...] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done
