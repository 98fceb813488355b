"""Writing so that nothing is ever half written."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
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
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            write(file)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise ExampleError(
            f"{path} can't be written: {error.strerror or error}. Make room there, or pass "
            "another --output_dir"
        ) from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write data as JSON, as a whole or not at all.

    Raises:
        ExampleError: it can't be written.
    """
    text = json.dumps(data, indent=4, default=str) + "\n"
    write_atomically(path, lambda file: _write_text(file, text))


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


def _write_text(file: IO[bytes], text: str) -> None:
    file.write(text.encode())


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
