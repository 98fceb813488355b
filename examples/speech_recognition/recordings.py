"""Finding recordings and what is said in them: from a list of files, or from a dataset."""

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
"""A recording that is not read yet: its path, and its bytes where it is not a file of its own."""


def load_recordings(data: DataArguments, model: ModelArguments, stage: str) -> Dataset:
    """Find the recordings of a stage.

    Returns:
        A dataset with the columns audio (a ``Source``) and, for ``eval``, text.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read, or something is missing in it.
    """
    rows, asked = load_rows(data, model, stage)
    audio = "path" if "audio" not in rows.column_names and "path" in rows.column_names else "audio"
    columns = [audio, *(["text"] if stage == "eval" else [])]
    require_columns(rows.column_names, columns, asked)
    rows = as_text(limit(rows.select_columns(columns), data, stage), columns[1:], asked)
    if audio != "audio":
        rows = rows.rename_column(audio, "audio")
    if (file := local_file(data, stage)) is not None:
        folder = file.parent
        rows = as_text(rows, ["audio"], asked)
        rows = rows.map(
            lambda row: {"audio": str(folder / Path(row["audio"]).expanduser())},
            keep_in_memory=True,
            load_from_cache_file=False,
        )
    return rows.cast_column("audio", datasets.Audio(decode=False))


def samples(source: Source, rate: int) -> int:
    """How many samples a recording has, seen without reading them.

    Args:
        source: where it is.
        rate: how many samples a second it has to have.

    Raises:
        ExampleError: it can't be read, has another rate, or is empty.
    """
    try:
        about = soundfile.info(_file(source))
    except (OSError, soundfile.LibsndfileError) as error:
        raise _broken(source, error) from error
    if about.samplerate != rate:
        raise ExampleError(
            f"the recording {name_of(source)} has {about.samplerate} samples a second, but the "
            f"model hears {rate}. Convert it, for instance with: ffmpeg -i IN -ar {rate} OUT"
        )
    if not about.frames:
        raise ExampleError(f"the recording {name_of(source)} is empty. Take it out")
    return int(about.frames)


def read_recording(source: Source) -> np.ndarray[Any, Any]:
    """Read a recording; the mean of its channels.

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
    """What an error calls a recording."""
    return source["path"] or "without a file name"


def _broken(source: Source, error: Exception) -> ExampleError:
    missing = source["bytes"] is None and not Path(source["path"]).is_file()
    why = "there is no such file" if missing else f"it is broken, or no sound ({error})"
    return ExampleError(f"the recording {name_of(source)} can't be read: {why}. Mend or remove it")
