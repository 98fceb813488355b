"""Atomic writes."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from common.exits import ExampleError


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file completely or not at all.

    Args:
        path: the file. An existing file is replaced.
        write: writes the content.

    Raises:
        ExampleError: the file can't be written; an existing file is left as it is.
    """
    # A fixed name, so that the file left by an interruption is replaced by the next write.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise ExampleError(
            f"{path} can't be written: {error.strerror or error}. Free some space, or pass "
            "another --output_dir"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write data as JSON, atomically.

    Raises:
        ExampleError: the file can't be written.
    """
    write_text(path, json.dumps(data, indent=4, default=str) + "\n")


def write_tsv(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns with a header as tab-separated values, atomically.

    Raises:
        ExampleError: the file can't be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    write_text(path, table.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write text, atomically.

    Raises:
        ExampleError: the file can't be written.
    """

    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def make_output_dir(folder: Path) -> None:
    """Make the folder for results, and check that it is writable before a long run.

    Raises:
        ExampleError: it can't be made or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExampleError(
            f"--output_dir {folder} is not writable: {error.strerror or error}. Pass another folder"
        ) from error
