"""Finding the data: a dataset on the hub, or a local file."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from common.arguments import DataArguments, ModelArguments, require_positive
from common.exits import ExampleError, UsageError
from common.tables import Row, read_rows
from cpuaccel.errors import first_line

SPLITS = {"eval": "validation", "predict": "test"}
"""What each of an example's stages runs on."""

FILES = {"eval": "validation_file", "predict": "test_file"}
"""The option for the local file of each stage."""


def check_source(
    data: DataArguments, stages: Collection[str], options: Mapping[str, str] = FILES
) -> None:
    """See that the data of each stage is named exactly once.

    Args:
        data: which data.
        stages: ``eval``, ``predict`` or both.
        options: for each of them the option that names local data.

    Raises:
        UsageError: it is not named, or in two ways.
    """
    for stage in stages:
        named = getattr(data, options[stage])
        if data.dataset_name is None and named is None:
            raise UsageError(
                f"--do_{stage} was asked for, but not on what data. Pass --dataset_name or "
                f"--{options[stage]}"
            )
        if data.dataset_name is not None and named is not None:
            raise UsageError(
                f"--dataset_name {data.dataset_name} and --{options[stage]} {named} were both "
                "given. Keep only one"
            )
    require_positive(data, "max_eval_samples", "max_predict_samples", "preprocessing_num_workers")


def local_file(data: DataArguments, stage: str) -> Path | None:
    """Return the local file of a stage, where one is named."""
    named = getattr(data, FILES[stage])
    return None if named is None else Path(named).expanduser()


def load_rows(
    data: DataArguments,
    model: ModelArguments,
    stage: str,
    *,
    read: Callable[[Path, str], list[Row]] = read_rows,
    splits: Sequence[str] | None = None,
) -> tuple[Dataset, str]:
    """Load the rows of a stage from its local file or from the dataset on the hub.

    Args:
        data: which data.
        model: holds the token and the cache folder for the hub.
        stage: ``eval`` or ``predict``.
        read: reads a local file, given its path and the option that names it.
        splits: see ``load_hub_dataset``.

    Returns:
        The rows, and the option with its value that names them, for errors.

    Raises:
        UsageError: the local file does not exist.
        ExampleError: the data can't be read.
    """
    file = local_file(data, stage)
    if file is None:
        return load_hub_dataset(data, model, stage, splits), f"--dataset_name {data.dataset_name}"
    option = f"--{FILES[stage]}"
    return from_rows(read(file, option), f"{option} {file}"), f"{option} {file}"


def load_hub_dataset(
    data: DataArguments,
    model: ModelArguments,
    stage: str,
    splits: Sequence[str] | None = None,
) -> Dataset:
    """Load a stage's split of the dataset that ``--dataset_name`` names.

    Args:
        data: which dataset.
        model: holds the token and the cache's place.
        stage: ``eval`` or ``predict``.
        splits: the split's possible names, the first that is there; by default by the stage.

    Raises:
        ExampleError: it can't be had, or has no such split.
    """
    assert data.dataset_name is not None
    asked = f"--dataset_name {data.dataset_name}"
    try:
        if (Path(data.dataset_name) / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(data.dataset_name)
        else:
            found = datasets.load_dataset(
                data.dataset_name,
                data.dataset_config_name,
                cache_dir=model.cache_dir,
                token=model.token,
                download_mode="force_redownload" if data.overwrite_cache else None,
            )
    except Exception as error:  # its loaders raise whatever their parsers raise
        raise ExampleError(
            f"{asked} was asked for, but can't be loaded: {first_line(error)}. Names on the hub "
            f"need a network; without one pass a local folder, or a file with --{FILES[stage]}"
        ) from error
    for split in splits or (SPLITS[stage],):
        if split in found:
            return _nonempty(found[split], f"{asked}, split {split},")
    raise ExampleError(
        f"{asked} was asked for with --do_{stage}, but it has no split "
        f"{' or '.join(splits or (SPLITS[stage],))}. There are: {', '.join(map(str, found))}"
    )


def require_columns(there: Collection[str], columns: Collection[str], asked: str) -> None:
    """See that data has the columns that an example reads.

    Args:
        there: the names of its columns.
        columns: the names of those that are read.
        asked: the option and its value that named the data, for errors.

    Raises:
        ExampleError: some are missing.
    """
    missing = [column for column in columns if column not in there]
    if missing:
        raise ExampleError(
            f"{asked} was asked for, but it has no column {' and no column '.join(missing)}. "
            f"There are: {', '.join(map(str, there))}"
        )


def limit(dataset: Dataset, data: DataArguments, stage: str) -> Dataset:
    """Keep the first rows, as many as the options allow for a stage."""
    count = data.max_eval_samples if stage == "eval" else data.max_predict_samples
    return dataset if count is None else dataset.select(range(min(count, len(dataset))))


def tokenize_rows(
    dataset: Dataset, tokenize: Callable[..., dict[str, Any]], workers: int | None, **options: bool
) -> Dataset:
    """Replace all columns of a dataset by what ``tokenize`` returns for batches of its rows."""
    return dataset.map(
        tokenize,
        batched=True,
        remove_columns=dataset.column_names,
        num_proc=workers,
        keep_in_memory=True,
        load_from_cache_file=False,
        **options,
    )


def from_rows(rows: Sequence[dict[str, Any]], asked: str) -> Dataset:
    """A dataset of rows that were read from a file.

    Raises:
        ExampleError: the rows don't have the same columns, or a column has several types.
    """
    columns = set(rows[0])
    for number, row in enumerate(rows, 1):
        if set(row) != columns:
            odd = ", ".join(sorted(columns ^ set(row)))
            raise ExampleError(
                f"{asked} was asked for, but row {number} in it differs from the first in the "
                f"columns that it has: {odd}. Give each row the same columns"
            )
    try:
        return Dataset.from_list(list(rows))
    except (ValueError, TypeError) as error:  # pyarrow's own errors are both
        raise ExampleError(
            f"{asked} was asked for, but its rows don't fit together: {first_line(error)}. Give "
            "each column values of one type"
        ) from error


def _nonempty(dataset: Dataset, asked: str) -> Dataset:
    if not len(dataset):
        raise ExampleError(f"{asked} was asked for, but it is empty")
    return dataset
