"""The data of an example: a dataset on the hub, or a local file."""

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
"""The split of a dataset for each stage."""

FILES = {"eval": "validation_file", "predict": "test_file"}
"""The option that names the local file of each stage."""


def check_source(
    data: DataArguments, stages: Collection[str], options: Mapping[str, str] = FILES
) -> None:
    """Check that exactly one option names the data of each stage.

    Args:
        data: the options.
        stages: ``eval``, ``predict`` or both.
        options: the option that names local data, for each stage.

    Raises:
        UsageError: no option or two options name the data, or a count is below 1.
    """
    for stage in stages:
        named = getattr(data, options[stage])
        if data.dataset_name is None and named is None:
            raise UsageError(f"--do_{stage} needs data. Pass --dataset_name or --{options[stage]}")
        if data.dataset_name is not None and named is not None:
            raise UsageError(
                f"--dataset_name {data.dataset_name} and --{options[stage]} {named} exclude each "
                "other. Pass only one"
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
    """Load the split for a stage of the dataset that ``--dataset_name`` names.

    Args:
        data: the options.
        model: holds the token and the cache folder for the hub.
        stage: ``eval`` or ``predict``.
        splits: names of the split, of which the first that exists is loaded; ``SPLITS`` by default.

    Raises:
        ExampleError: the dataset can't be loaded, has no such split, or the split is empty.
    """
    assert data.dataset_name is not None
    origin = f"--dataset_name {data.dataset_name}"
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
    except Exception as error:  # loaders raise errors of any parser
        raise ExampleError(
            f"{origin} can't be loaded: {first_line(error)}. A name on the hub needs a network; "
            f"without one, pass a local folder, or a file with --{FILES[stage]}"
        ) from error
    for split in splits or (SPLITS[stage],):
        if split in found:
            return _nonempty(found[split], f"split {split} of {origin}")
    raise ExampleError(
        f"{origin} has no split {' or '.join(splits or (SPLITS[stage],))} for --do_{stage}. "
        f"Available: {', '.join(map(str, found))}"
    )


def require_columns(there: Collection[str], columns: Collection[str], origin: str) -> None:
    """Check that data has the columns that an example reads.

    Args:
        there: names of the columns in the data.
        columns: names of the columns that are read.
        origin: the option and its value that name the data, for errors.

    Raises:
        ExampleError: a column is missing.
    """
    missing = [column for column in columns if column not in there]
    if missing:
        raise ExampleError(
            f"{origin} has no column {' and no column '.join(missing)}. "
            f"Available: {', '.join(map(str, there))}"
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


def from_rows(rows: Sequence[dict[str, Any]], origin: str) -> Dataset:
    """Make a dataset of rows that were read from a file.

    Raises:
        ExampleError: the rows differ in their columns, or a column has values of several types.
    """
    columns = set(rows[0])
    for number, row in enumerate(rows, 1):
        if set(row) != columns:
            odd = ", ".join(sorted(columns ^ set(row)))
            raise ExampleError(
                f"{origin}: row {number} differs from row 1 in its columns: {odd}. Give all rows "
                "the same columns"
            )
    try:
        return Dataset.from_list(list(rows))
    except (ValueError, TypeError) as error:  # the bases of pyarrow's errors
        raise ExampleError(
            f"{origin}: a column has values of several types: {first_line(error)}. Give each "
            "column values of one type"
        ) from error


def _nonempty(dataset: Dataset, origin: str) -> Dataset:
    if not len(dataset):
        raise ExampleError(f"{origin} is empty")
    return dataset
