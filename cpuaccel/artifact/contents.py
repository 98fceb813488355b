"""Reading an artifact's files, each once, and only with the hash that is listed for it."""

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import psutil

from cpuaccel.artifact.layout import MAX_TEXT, REQUIRED, SUMS, is_plain
from cpuaccel.errors import ArtifactError

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class Contents:
    """The files of one folder; to be closed, or used as a context.

    What is read is what was hashed: no file is opened twice, so that none can change between the
    two. Links are not followed, and what is no regular file is not opened.

    Attributes:
        folder: the folder.
        asked: how errors begin.
        sums: the listed hashes by name.
        checked: the names of the files that were found to be what was saved.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder and read the list of hashes.

        Raises:
            ArtifactError: there is no such folder, or it holds no artifact.
        """
        self.folder = folder
        self.checked: set[str] = set()
        self.asked = f"loading {folder} was asked for"
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ArtifactError(
                f"{self.asked}, but it can't be opened: {error.strerror}. Pass the folder that "
                "OptimizedModel.save wrote"
            ) from None
        try:
            self.sums = self._list()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def text(self, name: str) -> bytes:
        """A file for people, of at most ``MAX_TEXT`` bytes."""
        return self.read(name, MAX_TEXT)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """A file's bytes.

        Args:
            name: one of ``sums``.
            limit: largest size in bytes; by default half the memory that is free.

        Raises:
            ArtifactError: it is missing, no regular file, larger, or not what was saved.
        """
        with self._open(name) as file:
            data = self._read(file, name, limit)
        self._compare(name, hashlib.sha256(data).hexdigest())
        return data

    def check(self, name: str) -> None:
        """Hold a file that is not needed against its hash, without keeping it.

        Raises:
            ArtifactError: as ``read``.
        """
        with self._open(name) as file:
            try:
                digest = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise self._unreadable(name, error) from None
        self._compare(name, digest.hexdigest())

    def fault(self, name: str, what: str) -> ArtifactError:
        """The error for a file that is not what was saved."""
        return ArtifactError(
            f"{self.asked}, but {name} in it {what}. Save it anew, or fetch it again from where it "
            "came"
        )

    def _list(self) -> dict[str, str]:
        try:
            with self._open(SUMS) as file:
                data = self._read(file, SUMS, MAX_TEXT)
        except FileNotFoundError:
            raise ArtifactError(
                f"{self.asked}, but there is no {SUMS} in it, so it is no artifact. Pass the "
                "folder that OptimizedModel.save wrote"
            ) from None
        sums = _parse_sums(data, self.asked)
        for name in REQUIRED:
            if name not in sums:
                raise self.fault(SUMS, f"does not list {name}")
        return sums

    def _open(self, name: str) -> io.BufferedReader:
        # Without O_NONBLOCK opening a pipe would wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            if name == SUMS:
                raise
            raise self.fault(name, "is missing") from None
        except OSError as error:
            raise self._unreadable(name, error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self.fault(name, "is no regular file")
        return os.fdopen(descriptor, "rb")

    def _read(self, file: io.BufferedReader, name: str, limit: int | None) -> bytes:
        size = os.fstat(file.fileno()).st_size
        most = psutil.virtual_memory().available // 2 if limit is None else limit
        if size > most:
            raise ArtifactError(
                f"{self.asked}, but {name} in it has {size} bytes, and at most {most} are read "
                f"{'with the memory that is free here' if limit is None else 'of such a file'}. "
                "Free memory, or save a smaller model"
            )
        try:
            return file.read(size)  # no more, though it grows meanwhile
        except OSError as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: OSError) -> ArtifactError:
        return self.fault(name, f"can't be read: {error.strerror}")

    def _compare(self, name: str, digest: str) -> None:
        if digest != self.sums[name]:
            raise self.fault(name, f"is not what was saved: its SHA-256 differs from {SUMS}'s")
        self.checked.add(name)


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Hash files of a folder and write the list."""
    lines = []
    for name in names:
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def _parse_sums(data: bytes, asked: str) -> dict[str, str]:
    """Hashes by name.

    Raises:
        ArtifactError: a line is malformed, twice there, or names what is not in the folder itself.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), start=1):
        found = _LINE.fullmatch(line)
        if found is None or not is_plain(found[2]) or found[2] in sums:
            raise ArtifactError(
                f"{asked}, but line {number} of {SUMS} is {line[:120]!r}. A line is a hash, two "
                "spaces and the name of a file in the same folder, each named once. Save it "
                "anew, or fetch it again from where it came"
            )
        sums[found[2]] = found[1]
    return sums
