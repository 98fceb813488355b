"""Cache folders of tests."""

from pathlib import Path

import pytest

import cpuaccel


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cpuaccel use a folder as its cache, in this process and in those it starts."""
    monkeypatch.setenv("CPUACCEL_CACHE", str(with_kernels(folder)))


def with_kernels(folder: Path) -> Path:
    """Make a cache folder that has the compiled kernels: compiling them takes 15 seconds."""
    compiled, kernels = cpuaccel.cache_folder("kernels"), folder / "kernels"
    if not kernels.is_symlink():
        compiled.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True)
        kernels.symlink_to(compiled)
    return folder
