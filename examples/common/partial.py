"""Partial results, with which an interrupted run continues."""

import json
import shutil
import signal
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import numpy as np

from common.exits import Interrupted, print_status
from common.files import write_atomically, write_json

Arrays = dict[str, np.ndarray[Any, Any]]


class PartialResults:
    """The finished chunks of a run, as files in a folder.

    The context manager removes them on success, keeps them on failure, and says how to continue
    when the run was interrupted.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], *, restart: bool) -> None:
        """Open or make the folder.

        Args:
            folder: made if missing.
            fingerprint: everything that the results depend on; chunks with another are dropped.
            restart: drop all chunks.

        Raises:
            ExampleError: the folder is not writable.
        """
        self.folder = folder
        self._interrupted = False
        written = self._fingerprint()
        if written and written != fingerprint and not restart:
            changed = [name for name in fingerprint if written.get(name) != fingerprint[name]]
            other = " and ".join(changed)
            print_status(f"the interrupted run in {folder} had other {other}: starting over")
        if restart or written != fingerprint:
            self._remove()
            folder.mkdir(parents=True)
            write_json(self._fingerprint_file, fingerprint)

    def load(self, number: int) -> Arrays | None:
        """Load a chunk; return None if it is not finished or its file is corrupt."""
        try:
            with (
                self._file(number).open("rb") as file,
                np.load(file, allow_pickle=False) as archive,
            ):
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, number: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write a finished chunk.

        Raises:
            ExampleError: it can't be written.
            KeyboardInterrupt: Ctrl-C was pressed since the last chunk, and a library ignored it.
        """

        def write(file: IO[bytes]) -> None:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # accepts any names

        write_atomically(self._file(number), write)
        if self._interrupted:  # datasets catches any exception while it pickles
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        """Record Ctrl-C, unless another handler is in place."""
        self._handler = signal.getsignal(signal.SIGINT)
        if self._handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove or keep the chunks."""
        if self._handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)
        if kind is None:
            self._remove()
        elif issubclass(kind, KeyboardInterrupt):
            kept = len(list(self.folder.glob("chunk-*.npz")))
            raise Interrupted(
                f"{kept} finished chunks are kept in {self.folder}. To continue, run the same "
                "command again; to start over, add --overwrite_output_dir"
            ) from error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

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
