"""Putting a whole folder in the place of another at once."""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpuaccel.artifact.layout import is_ours
from cpuaccel.errors import ArtifactError

_AT_FDCWD = -100
_EXCHANGE = 2


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder``, which takes its place on leaving.

    If anything is raised, and so by Ctrl-C too, ``folder`` is as it was and nothing is left. A
    process that is killed leaves the new folder, named ``.cpuaccel-`` and eight digits.

    Raises:
        ArtifactError: ``folder`` is a file, or holds files that are no artifact's.
        OSError: the file system refuses.
    """
    folder = folder.resolve()
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.parent / f".cpuaccel-{secrets.token_hex(4)}"
    try:
        new.mkdir()
        yield new
        for path in (*new.iterdir(), new):
            _flush(path)
        _put(new, folder)
        _flush(folder.parent)
    finally:
        _remove(new)  # where it took another's place, the other


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(
            f"saving to {folder} was asked for, which is a file. Choose another folder"
        )
    strangers = (
        sorted(p.name for p in folder.iterdir() if not is_ours(p.name)) if folder.exists() else []
    )
    if strangers:
        raise ArtifactError(
            f"saving to {folder} was asked for, which is replaced as a whole, but it holds "
            f"{', '.join(strangers[:3])}{' and more' if strangers[3:] else ''}, which is no "
            "artifact's. Choose another folder, or move that away"
        )


def _put(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)  # also replaces an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, folder):
            _step_aside(new, folder)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, if this file system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _step_aside(new: Path, folder: Path) -> None:
    """Replace in two steps, where there is no one step: killed between them, none is in place."""
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
    except KeyboardInterrupt:  # first finish, or half a folder is left
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
