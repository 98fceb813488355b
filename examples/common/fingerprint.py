"""Digests of everything that predictions depend on."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import torch
import transformers
from datasets import Dataset

import cpuaccel
from common.arguments import GeneratingRunArguments, RunArguments

ROWS = 1000
"""Rows of a dataset in memory at a time."""


def fingerprint(
    model: transformers.PreTrainedModel, dataset: Dataset, run: RunArguments, **others: object
) -> dict[str, str]:
    """Compute digests of everything that the outputs of a model depend on.

    Args:
        model: its weights and config count, not its path.
        dataset: inputs of the model.
        run: its pipeline, precision and batch size count.
        others: whatever else the outputs depend on.

    Returns:
        Digests by names that can tell the user what changed.
    """
    pipeline = run.inference_pipeline
    chosen: dict[str, object] = {
        "steps": [] if pipeline is None else [repr(step) for step in pipeline.steps],
        "dtype": None if pipeline is None else str(pipeline.dtype),
        "bf16": [run.bf16, run.bf16_full_eval],
        "batch_size": run.per_device_eval_batch_size,
        "compare_with_eager": run.compare_with_eager,
    }
    if isinstance(run, GeneratingRunArguments):
        chosen["search"] = [run.generation_num_beams, run.generation_max_length]
    versions = [module.__version__ for module in (torch, transformers, cpuaccel)]
    return {
        "model": _of_model(model),
        "data": _of_dataset(dataset),
        "options": _of_data({**chosen, **others}),
        "versions": _of_data(versions),
    }


def of_files(paths: Iterable[str | None]) -> str:
    """Compute a digest of the paths, sizes and times of files that are too large to read twice.

    Args:
        paths: the files; missing ones are left out.
    """
    found = []
    for path in map(Path, filter(None, paths)):
        if path.is_file():
            state = path.stat()
            found.append((str(path), state.st_size, state.st_mtime_ns))
    return _of_data(found)


def _of_model(model: transformers.PreTrainedModel) -> str:
    found = hashlib.sha256(model.config.to_json_string().encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        # As bytes, since numpy has no bfloat16.
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _of_dataset(dataset: Dataset) -> str:
    found = hashlib.sha256()
    rows = dataset.with_format("arrow")
    for start in range(0, len(rows), ROWS):
        table: pa.Table = rows[start : start + ROWS]
        # Copy: the buffers of a slice contain the rows outside it too.
        table = table.take(pa.array(range(len(table)))).combine_chunks().replace_schema_metadata()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        found.update(sink.getvalue())
    return found.hexdigest()


def _of_data(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
