"""Reading local files of rows: JSON, JSON lines and CSV."""

import json
from pathlib import Path
from typing import Any

from common.exits import ExampleError, UsageError

Row = dict[str, Any]


def read_json(path: Path, option: str) -> Any:
    """Read a JSON file, or JSON lines as a list.

    Args:
        path: the file; ``.jsonl``, or any JSON file of which each line is an object, is JSON lines.
        option: the option that named it, for errors.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read, is empty or is not JSON.
    """
    text = read_text(path, option)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix == ".jsonl":
        return [_json(line, path, option, number) for number, line in lines]
    try:
        return _json(text, path, option, 1)
    except ExampleError:
        # JSON lines go by the name .json too: there the first line is whole.
        if len(lines) < 2 or not _is_json(lines[0][1]):
            raise
        return [_json(line, path, option, number) for number, line in lines]


def read_rows(path: Path, option: str) -> list[Row]:
    """Read rows from a JSON file (a list, or one under ``data``), from JSON lines or from CSV.

    Args:
        path: the file; ``.csv`` and ``.tsv`` have a header line.
        option: the option that named it, for errors.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read, or there are no rows in it.
    """
    if path.suffix in (".csv", ".tsv"):
        return _read_csv(path, option)
    content = read_json(path, option)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    rows = content if isinstance(content, list) else [content]
    if not rows:
        raise ExampleError(f"{option} {path} was asked for, but there are no rows in it")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ExampleError(
                f"{option} {path} was asked for, but row {number} in it is a "
                f"{type(row).__name__}. Each row has to be an object, with a field for each column"
            )
    return rows


def _read_csv(path: Path, option: str) -> list[Row]:
    import pandas as pd

    read_text(path, option)
    try:
        # A cell that reads NA or None is text like any other.
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False)
    except ValueError as error:  # also pandas' own parser errors
        raise ExampleError(
            f"{option} {path} was asked for, but is not CSV: {error}. Mend it, or pass another"
        ) from error
    if table.empty:
        raise ExampleError(f"{option} {path} was asked for, but there are no rows in it")
    rows: list[Row] = table.to_dict("records")
    return rows


def read_text(path: Path, option: str) -> str:
    """Read a text file.

    Args:
        path: the file.
        option: the option that named it, for errors.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read as UTF-8, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{option} {path} was asked for, but there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ExampleError(
            f"{option} {path} was asked for, but can't be read as UTF-8 text: {why}"
        ) from error
    if not text.strip():
        raise ExampleError(f"{option} {path} was asked for, but it is empty")
    return text


def _json(text: str, path: Path, option: str, first: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ExampleError(
            f"{option} {path} was asked for, but is not JSON: {error.msg.lower()} in line "
            f"{first + error.lineno - 1}, column {error.colno}. Mend it, or pass another"
        ) from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
