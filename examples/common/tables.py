"""Readers of local files with rows: JSON, JSON lines and CSV."""

import json
from pathlib import Path
from typing import Any

from common.exits import ExampleError, UsageError

Row = dict[str, Any]


def read_json(path: Path, option: str) -> Any:
    """Read a JSON file, or JSON lines as a list.

    Args:
        path: the file. ``.jsonl``, and JSON with an object on each line, are JSON lines.
        option: the option that names the file, for errors.

    Raises:
        UsageError: the file does not exist.
        ExampleError: it can't be read, is empty or is invalid JSON.
    """
    text = read_text(path, option)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix == ".jsonl":
        return [_json(line, path, option, number) for number, line in lines]
    try:
        return _json(text, path, option, 1)
    except ExampleError:
        # JSON lines may be named .json too; then the first line is complete.
        if len(lines) < 2 or not _is_json(lines[0][1]):
            raise
        return [_json(line, path, option, number) for number, line in lines]


def read_rows(path: Path, option: str) -> list[Row]:
    """Read rows from a JSON file (a list, or one under ``data``), from JSON lines or from CSV.

    Args:
        path: the file; ``.csv`` and ``.tsv`` have a header line.
        option: the option that names the file, for errors.

    Raises:
        UsageError: the file does not exist.
        ExampleError: it can't be read, or has no rows.
    """
    if path.suffix in (".csv", ".tsv"):
        return _read_csv(path, option)
    content = read_json(path, option)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    rows = content if isinstance(content, list) else [content]
    if not rows:
        raise ExampleError(f"{option} {path} has no rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ExampleError(
                f"{option} {path}: row {number} must be an object with a field for each column, "
                f"got a {type(row).__name__}"
            )
    return rows


def _read_csv(path: Path, option: str) -> list[Row]:
    import pandas as pd

    read_text(path, option)
    try:
        # Keep NA and None as text.
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False)
    except ValueError as error:  # the base of pandas' parser errors
        raise ExampleError(
            f"{option} {path}: invalid CSV: {error}. Correct it, or pass another file"
        ) from error
    if table.empty:
        raise ExampleError(f"{option} {path} has no rows")
    rows: list[Row] = table.to_dict("records")
    return rows


def read_text(path: Path, option: str) -> str:
    """Read a text file.

    Args:
        path: the file.
        option: the option that names the file, for errors.

    Raises:
        UsageError: the file does not exist.
        ExampleError: it isn't UTF-8, can't be read or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{option} {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ExampleError(f"{option} {path} can't be read as UTF-8 text: {why}") from error
    if not text.strip():
        raise ExampleError(f"{option} {path} is empty")
    return text


def _json(text: str, path: Path, option: str, first: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ExampleError(
            f"{option} {path}: invalid JSON: {error.msg.lower()} in line "
            f"{first + error.lineno - 1}, column {error.colno}. Correct it, or pass another file"
        ) from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
