"""Cache folders of tests."""

from pathlib import Path

import pytest

import cpuaccel


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cpuaccel use a folder as its cache, in this process and in those it starts.

    Compiled kernels stay where they are: compiling them takes 15 seconds.
    """
    compiled, kernels = cpuaccel.cache_folder("kernels"), folder / "kernels"
    if not kernels.is_symlink():
        compiled.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True)
        kernels.symlink_to(compiled)
    monkeypatch.setenv("CPUACCEL_CACHE", str(folder))
