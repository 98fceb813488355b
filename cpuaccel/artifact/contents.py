"""The files of an artifact, read once each and verified against ``SHA256SUMS``."""

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from cpuaccel.artifact.layout import MAX_TEXT, REQUIRED, SUMS, is_plain
from cpuaccel.artifact.mapping.known_files import is_known, remember
from cpuaccel.errors import ArtifactError

SAVE_AGAIN = "Save it again, or download it again"
OTHER_FOLDER = "Pass a folder that OptimizedModel.save wrote"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class Contents:
    """The files of one folder, which is open until ``close``.

    Each file is opened once, and the bytes returned are the bytes whose checksum was verified, so
    that no file can change in between. A file that is mapped must not be written to later.
    Symbolic links, pipes and devices are not opened.

    Attributes:
        folder: the folder.
        sums: the listed SHA-256 checksums by file name.
        listed: the bytes of the list.
        checked: names of the files whose checksum was verified.
    """

    def __init__(self, folder: Path, *, hash_all: bool = False) -> None:
        """Open the folder and read the list of checksums.

        Args:
            folder: the folder.
            hash_all: also hash large files that are as they were when they were last hashed.
        """
        self.folder = folder
        self._hash_all = hash_all
        self.checked: set[str] = set()
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self.error(
                f"the folder can't be opened: {error.strerror}", OTHER_FOLDER
            ) from None
        try:
            self.listed = self._read_list()
            self.sums = self._parse_sums(self.listed)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the folder."""
        os.close(self._descriptor)

    def text(self, name: str) -> bytes:
        """Read a text file of at most ``MAX_TEXT`` bytes; see ``read``."""
        return self.read(name, MAX_TEXT)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Read a file and verify its checksum.

        Args:
            name: a key of ``sums``.
            limit: largest size in bytes. Default: half of the free memory.

        Raises:
            ArtifactError: the file is missing, not a regular file, too large or changed.
        """
        with self._open(name) as file:
            data = self._read(file, name, limit)
        self._compare(name, hashlib.sha256(data).hexdigest())
        return data

    def open(self, name: str) -> io.BufferedReader:
        """Open a file to map it, and verify its checksum unless it is known; see ``read``."""
        file = self._open(name)
        try:
            self._verify(file, name)
        except BaseException:
            file.close()
            raise
        return file

    def tensors_header(self, name: str) -> bytes:
        """Read the header of a safetensors file, in JSON, and verify the whole file's checksum."""
        with self._open(name) as file:
            try:
                size = int.from_bytes(file.read(8), "little")
                header = file.read(min(size, MAX_TEXT))
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise self._unreadable(name, error) from None
        self._compare(name, digest.hexdigest())
        return header

    def check_rest(self) -> None:
        """Verify the checksums of all files that were not read."""
        for name in self.sums.keys() - self.checked:
            self.open(name).close()

    def error(self, problem: str, remedy: str) -> ArtifactError:
        """Make an error about the folder. Neither sentence ends in a full stop."""
        return ArtifactError(f"cannot load {self.folder}: {problem}. {remedy}")

    def file_error(self, name: str, problem: str) -> ArtifactError:
        """Make an error about a file that can't be used."""
        return self.error(f"{name} {problem}", SAVE_AGAIN)

    def _read_list(self) -> bytes:
        with self._open(SUMS) as file:
            return self._read(file, SUMS, MAX_TEXT)

    def _parse_sums(self, data: bytes) -> dict[str, str]:
        sums: dict[str, str] = {}
        for number, line in enumerate(data.decode("ascii", "replace").splitlines(), start=1):
            match = _LINE.fullmatch(line)
            if match is None or not is_plain(match[2]) or match[2] in sums:
                raise self.error(
                    f"line {number} of {SUMS} must be a checksum, two spaces and the name of a "
                    f"file in the folder, each named once, got {line[:120]!r}",
                    SAVE_AGAIN,
                )
            sums[match[2]] = match[1]
        for name in REQUIRED:
            if name not in sums:
                raise self.file_error(SUMS, f"does not list {name}")
        return sums

    def _open(self, name: str) -> io.BufferedReader:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            if name == SUMS:
                problem = f"not an artifact, because it has no {SUMS}"
                raise self.error(problem, OTHER_FOLDER) from None
            raise self.file_error(name, "is missing") from None
        except OSError as error:
            raise self._unreadable(name, error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self.file_error(name, "is not a regular file")
        return os.fdopen(descriptor, "rb")

    def _verify(self, file: io.BufferedReader, name: str) -> None:
        status = os.fstat(file.fileno())
        if not self._hash_all and is_known(status, self.sums[name]):
            self.checked.add(name)
            return
        self._check_size(status.st_size, name, None)
        try:
            digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise self._unreadable(name, error) from None
        file.seek(0)
        self._compare(name, digest.hexdigest())
        remember(status, self.sums[name])

    def _read(self, file: io.BufferedReader, name: str, limit: int | None) -> bytes:
        size = os.fstat(file.fileno()).st_size
        self._check_size(size, name, limit)
        try:
            return file.read(size)  # never more, even if the file grows meanwhile
        except OSError as error:
            raise self._unreadable(name, error) from None

    def _check_size(self, size: int, name: str, limit: int | None) -> None:
        most = psutil.virtual_memory().available // 2 if limit is None else limit
        if size > most:
            why = "half of the free memory" if limit is None else "the limit for text files"
            raise self.error(
                f"{name} must have at most {most} bytes ({why}), got {size}",
                "Free memory, or save a smaller model",
            )

    def _unreadable(self, name: str, error: OSError) -> ArtifactError:
        return self.file_error(name, f"can't be read: {error.strerror}")

    def _compare(self, name: str, digest: str) -> None:
        if digest != self.sums[name]:
            raise self.file_error(name, f"was changed: its checksum differs from {SUMS}")
        self.checked.add(name)


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 checksums of files by name."""
    sums = {}
    for name in names:
        with (folder / name).open("rb") as file:
            status = os.fstat(file.fileno())
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
            remember(status, sums[name])
    return sums


def write_sums(folder: Path, sums: Mapping[str, str]) -> bytes:
    """Write ``SHA256SUMS``, which ``sha256sum --check`` can read, too, and return its bytes."""
    data = "".join(f"{checksum}  {name}\n" for name, checksum in sums.items()).encode("ascii")
    (folder / SUMS).write_bytes(data)
    return data
