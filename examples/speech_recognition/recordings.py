"""Recordings and their texts, from a list of files or from a dataset."""

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
from datasets import Dataset

from common.arguments import DataArguments, ModelArguments
from common.columns import as_text
from common.data import limit, load_rows, local_file, require_columns
from common.exits import ExampleError

Source = dict[str, Any]
"""A recording that is not read yet: its path, and its bytes if it is not a file."""


def load_recordings(data: DataArguments, model: ModelArguments, stage: str) -> Dataset:
    """Find the recordings of a stage.

    Returns:
        A dataset with the columns audio (a ``Source``) and, for ``eval``, text.

    Raises:
        UsageError: the local file does not exist.
        ExampleError: the data can't be read, or lacks a column or a text.
    """
    rows, origin = load_rows(data, model, stage)
    audio = "path" if "audio" not in rows.column_names and "path" in rows.column_names else "audio"
    columns = [audio, *(["text"] if stage == "eval" else [])]
    require_columns(rows.column_names, columns, origin)
    rows = as_text(limit(rows.select_columns(columns), data, stage), columns[1:], origin)
    if audio != "audio":
        rows = rows.rename_column(audio, "audio")
    if (file := local_file(data, stage)) is not None:
        folder = file.parent
        rows = as_text(rows, ["audio"], origin)
        rows = rows.map(
            lambda row: {"audio": str(folder / Path(row["audio"]).expanduser())},
            keep_in_memory=True,
            load_from_cache_file=False,
        )
    return rows.cast_column("audio", datasets.Audio(decode=False))


def samples(source: Source, rate: int) -> int:
    """Return the number of samples in a recording, from its header.

    Args:
        source: the recording.
        rate: required sampling rate in Hz.

    Raises:
        ExampleError: it can't be read, has another rate, or is empty.
    """
    try:
        about = soundfile.info(_file(source))
    except (OSError, soundfile.LibsndfileError) as error:
        raise _broken(source, error) from error
    if about.samplerate != rate:
        raise ExampleError(
            f"the recording {name_of(source)} has {about.samplerate} samples per second, but the "
            f"model needs {rate}. Convert it, for example with: ffmpeg -i IN -ar {rate} OUT"
        )
    if not about.frames:
        raise ExampleError(f"the recording {name_of(source)} is empty. Remove it")
    return int(about.frames)


def read_recording(source: Source) -> np.ndarray[Any, Any]:
    """Read a recording as the mean of its channels.

    Returns:
        float32[samples].

    Raises:
        ExampleError: it can't be read.
    """
    try:
        sound, _ = soundfile.read(_file(source), dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise _broken(source, error) from error
    mean: np.ndarray[Any, Any] = sound.mean(axis=1)
    return mean


def _file(source: Source) -> Any:
    return source["path"] if source["bytes"] is None else BytesIO(source["bytes"])


def name_of(source: Source) -> str:
    """Name a recording in an error."""
    return source["path"] or "without a file name"


def _broken(source: Source, error: Exception) -> ExampleError:
    missing = source["bytes"] is None and not Path(source["path"]).is_file()
    why = "no such file" if missing else f"it is corrupt or not a sound file ({error})"
    return ExampleError(
        f"the recording {name_of(source)} can't be read: {why}. Repair or remove it"
    )
