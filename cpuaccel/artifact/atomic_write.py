"""Replacing a file or a folder in one step."""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpuaccel.artifact.layout import is_artifact_file
from cpuaccel.errors import ArtifactError, CpuaccelError

_AT_FDCWD = -100
_EXCHANGE = 2


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``folder`` when the body ends.

    If the body raises, Ctrl-C included, ``folder`` is unchanged and no other file is left. A
    process that is killed leaves the new folder, named ``.cpuaccel-`` and eight digits.

    Raises:
        ArtifactError: ``folder`` is a file, or contains files that no artifact has.
        OSError: the file system can't.
    """
    folder = folder.resolve()
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(folder)
    try:
        new.mkdir()
        yield new
        for path in (*new.iterdir(), new):
            _flush(path)
        _put(new, folder)
        _flush(folder.parent)
    finally:
        _remove(new)  # after an exchange, this is the previous folder


def write_file(path: Path, text: str) -> None:
    """Write a file in one step: other processes see the previous file or all of this one."""
    new = _beside(path)
    try:
        new.write_text(text, encoding="utf-8")
        _flush(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check before long work that a file can be written after it.

    Raises:
        CpuaccelError: it is a folder, or its own folder is missing or read-only.
    """
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise CpuaccelError(
            f"{path} can't be written: it is a folder, or its own folder is missing or read-only. "
            "Choose another path"
        )


def _beside(path: Path) -> Path:
    return path.absolute().parent / f".cpuaccel-{secrets.token_hex(4)}"


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"cannot save to {folder}: it is a file. Choose another folder")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if others := sorted(name for name in names if not is_artifact_file(name)):
        raise ArtifactError(
            f"cannot save to {folder}: saving replaces the whole folder, but it contains other "
            f"files: {', '.join(others[:3])}{' and more' if others[3:] else ''}. Choose another "
            "folder, or move them away"
        )


def _put(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)  # also replaces an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, folder):
            _replace_in_two_steps(new, folder)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step. Returns False if this file system can't."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_in_two_steps(new: Path, folder: Path) -> None:
    """Move the folder aside first. A process killed between the steps leaves no folder in place."""
    aside = new.with_name(new.name + "-old")
    folder.rename(aside)
    try:
        new.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    _remove(aside)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:  # finish first: half a folder would be left
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
