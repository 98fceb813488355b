"""A small disk to fill, for users who may mount one."""

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SIZE = 2**20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB on a new folder; skip where this user can't mount one."""
    if not may_mount():
        pytest.skip("this user can't mount a file system")
    folder.mkdir()
    _mount(folder).check_returncode()
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@functools.cache
def may_mount() -> bool:
    """Whether this user can mount a file system."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mounted = _mount(Path(folder)).returncode == 0
        if mounted:
            subprocess.run(["umount", folder], check=True)
    return mounted


def _mount(folder: Path) -> "subprocess.CompletedProcess[bytes]":
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False)


def fill(disk: Path, leaving: int = 0) -> Path:
    """Fill a small disk with a file until ``leaving`` bytes are free."""
    file = disk / "filling"
    with suppress(OSError), file.open("wb", buffering=0) as filling:
        while filling.tell() < SIZE - leaving:
            filling.write(bytes(4096))
    return file
