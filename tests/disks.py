"""A disk that gets full, for those who may mount one."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SIZE = 2**20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 1 MiB in a new folder; skips where this user can't mount one."""
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("this system has no command mount")
    folder.mkdir()
    asked = [mount, "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    if refusal := subprocess.run(asked, capture_output=True, text=True, check=False).stderr:
        pytest.skip(f"a disk can't be mounted here: {refusal.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, leaving: int = 0) -> Path:
    """Fill a small disk with a file, but for so many bytes."""
    file = disk / "filling"
    with suppress(OSError), file.open("wb", buffering=0) as filling:
        while filling.tell() < SIZE - leaving:
            filling.write(bytes(4096))
    return file
