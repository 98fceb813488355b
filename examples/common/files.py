"""Writing so that nothing is ever half written."""

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
    """Write a file as a whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        write: writes its content.

    Raises:
        ExampleError: it can't be written; what was there before still is.
    """
    # A name that is known beforehand: an interruption may come at any moment.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise ExampleError(
            f"{path} can't be written: {error.strerror or error}. Make room there, or pass "
            "another --output_dir"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write data as JSON, as a whole or not at all.

    Raises:
        ExampleError: it can't be written.
    """
    write_text(path, json.dumps(data, indent=4, default=str) + "\n")


def write_tsv(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns with their names as tab-separated values, as a whole or not at all.

    Raises:
        ExampleError: it can't be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    write_text(path, table.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write text, as a whole or not at all.

    Raises:
        ExampleError: it can't be written.
    """

    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def make_output_dir(folder: Path) -> None:
    """Make the folder for the results, and see now, not after hours, that it can be written to.

    Raises:
        ExampleError: it can't be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExampleError(
            f"--output_dir {folder} was asked for, but can't be written to: "
            f"{error.strerror or error}. Pass a folder that can be"
        ) from error
