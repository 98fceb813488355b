"""Keeping what is finished, so that an interrupted run goes on where it stopped."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from common.exits import Interrupted, tell
from common.files import write_atomically, write_json

Arrays = dict[str, np.ndarray[Any, Any]]


class PartialResults:
    """The finished chunks of a run, as files in a folder.

    As a context manager it removes them when all went well, keeps them when something failed, and
    tells how to go on when the run was interrupted.

    Attributes:
        folder: where they are.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], *, afresh: bool) -> None:
        """Open or make the folder.

        Args:
            folder: is made if missing.
            fingerprint: all that the results depend on; chunks of any other are dropped.
            afresh: drop those of this one too.

        Raises:
            ExampleError: it can't be written to.
        """
        self.folder = folder
        written = self._fingerprint()
        if written and written != fingerprint and not afresh:
            changed = [name for name in fingerprint if written.get(name) != fingerprint[name]]
            other = " and ".join(changed)
            tell(f"the interrupted run in {folder} had other {other}: starting afresh")
        if afresh or written != fingerprint:
            self._remove()
            folder.mkdir(parents=True)
            write_json(self._fingerprint_file, fingerprint)

    def load(self, number: int) -> Arrays | None:
        """A finished chunk; None if it is not finished, or its file is broken."""
        try:
            with (
                self._file(number).open("rb") as file,
                np.load(file, allow_pickle=False) as archive,
            ):
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, number: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep a finished chunk.

        Raises:
            ExampleError: it can't be written.
        """

        def write(file: IO[bytes]) -> None:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # takes arrays by any name

        write_atomically(self._file(number), write)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: see the class."""
        if kind is None:
            self._remove()
        elif issubclass(kind, KeyboardInterrupt):
            kept = len(list(self.folder.glob("chunk-*.npz")))
            raise Interrupted(
                f"{kept} finished chunks are kept in {self.folder}. To go on where this stopped, "
                "run the same command again; to start afresh, add --overwrite_output_dir"
            ) from error

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _fingerprint_file(self) -> Path:
        return self.folder / "fingerprint.json"

    def _file(self, number: int) -> Path:
        return self.folder / f"chunk-{number:05}.npz"

    def _fingerprint(self) -> dict[str, str]:
        try:
            written = json.loads(self._fingerprint_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return written if isinstance(written, dict) else {}
