"""Folders of a cache that processes of one machine share, and that go when none uses them."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

_LOCK = ".lock"

_using: dict[Path, int] = {}
"""Descriptors of the locks that this process holds until it ends."""


def used_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder that stays while this process lives. The first process writes it.

    Folders beside it that no process uses any more are deleted: Ray's and Spark's workers end in
    ways in which they can't clean up.

    Args:
        folder: its parent has only folders of this function.
        write: fills an empty folder, which is renamed to ``folder`` when it returns.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while folder not in _using:
        descriptor = _locked(folder, fcntl.LOCK_SH)
        assert descriptor is not None
        if folder.is_dir():
            _using[folder] = descriptor
        else:
            os.close(descriptor)  # a lock can't be exchanged in one step
            _write(folder, write)
    _delete_unused(folder.parent)
    return folder


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder, unless another process did it meanwhile."""
    descriptor = _locked(folder, fcntl.LOCK_EX)
    assert descriptor is not None
    try:
        if not folder.is_dir():
            part = _part(folder)
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir()
            write(part)
            part.rename(folder)
    finally:
        os.close(descriptor)


def _delete_unused(parent: Path) -> None:
    for lock in parent.glob(f"*{_LOCK}"):
        folder = lock.with_name(lock.name.removesuffix(_LOCK))
        if folder in _using:
            continue
        descriptor = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(_part(folder), ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _part(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")


def _locked(folder: Path, operation: int) -> int | None:
    """Lock a folder by the file beside it; None if that would wait and must not."""
    path = folder.with_name(folder.name + _LOCK)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # deleted by another process while this one waited
