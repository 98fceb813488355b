"""Replacing a file or a folder in one step."""

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
    new = _beside(folder)
    try:
        new.mkdir()
        yield new
        for path in (*new.iterdir(), new):
            _flush(path)
        _put(new, folder)
        _flush(folder.parent)
    finally:
        _remove(new)  # where it took another's place, the other


def write_file(path: Path, text: str) -> None:
    """Write a file in one step: other processes see the previous file or all of this one.

    Raises:
        OSError: it can't be written; the previous file is unchanged.
    """
    new = _beside(path)
    try:
        new.write_text(text, encoding="utf-8")
        _flush(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.absolute().parent / f".cpuaccel-{secrets.token_hex(4)}"


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
