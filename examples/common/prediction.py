"""Prediction in chunks through Trainer, so that a run can be interrupted and compared."""

import copy
import functools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import transformers
from datasets import Dataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from common.arguments import RunArguments
from common.exits import print_status
from common.generation import PADDING, GeneratingTrainer, Generation
from common.partial import Arrays, PartialResults
from cpuaccel.integrations.trainer import CpuaccelTrainer
from cpuaccel.report import Report

CHUNK_BATCHES = 4
"""Batches in a chunk, the most that an interruption loses."""

EAGER, OPTIMIZED = "eager", "optimized"

Array = np.ndarray[Any, Any]
Collator = Callable[[list[Any]], dict[str, Any]]
Reduce = Callable[[Any, Any], Any]


@dataclass
class Predictions:
    """The outputs of one run of the model.

    Attributes:
        outputs: the model's outputs, each with the rows of the dataset in its order; padded with
            -100 where rows differ in shape.
        seconds: duration of each chunk, without building.
    """

    outputs: tuple[Array, ...]
    seconds: list[float]


@dataclass
class Predicted:
    """The result of a prediction.

    Attributes:
        runs: ``optimized`` with a pipeline or a precision, ``eager`` without or for comparison.
        samples: number of rows.
        build_seconds: time to build the optimized model in this process.
        report: report of the optimized model; None if none was built.
        calls: number of batches that the optimized model and the original computed in this process.
        applied: the steps of the pipeline, and whether each was applied in this process.
    """

    runs: dict[str, Predictions]
    samples: int
    build_seconds: float = 0.0
    report: Report | None = None
    calls: Counter[str] = field(default_factory=Counter)
    applied: dict[str, int] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The name of the main run."""
        return OPTIMIZED if OPTIMIZED in self.runs else EAGER


def predict(
    model: transformers.PreTrainedModel,
    dataset: Dataset,
    collator: Collator,
    run: RunArguments,
    partial: PartialResults,
    *,
    lengths: Sequence[int] | None = None,
    reduce: Reduce | None = None,
    generation: Generation | None = None,
    unit: str = "example",
) -> Predicted:
    """Predict a dataset, continuing an interrupted run.

    Args:
        model: in eval mode.
        dataset: inputs of the model, without labels.
        collator: makes a batch of rows.
        run: options of the run.
        partial: the finished chunks.
        lengths: length of each row, to batch rows of similar length.
        reduce: what to keep of the outputs of a batch, given outputs and labels, to save memory;
            everything by default.
        generation: how tokens are generated, which are then the outputs; by default the model is
            called.
        unit: noun for a row on the progress bar.
    """
    trainers = _trainers(model, collator, run, reduce, generation)
    options: Mapping[str, Any] = {} if generation is None else generation.options
    chunks = _chunks(len(dataset), lengths, run.eval_batch_size)
    finished = {n: kept for n in range(len(chunks)) if (kept := partial.load(n)) is not None}
    done = sum(len(chunks[number]) for number in finished)
    if finished:
        print_status(f"continuing after {done} of {len(dataset)} finished {unit}s")
    build_seconds = 0.0
    calls: Counter[str] = Counter()
    applied: dict[str, int] = {}
    if EAGER in trainers and OPTIMIZED in trainers and len(finished) < len(chunks):
        # Building warms up the optimized model; warm up the original too.
        trainers[EAGER].predict(dataset.select(chunks[0][: run.eval_batch_size]), **options)
    with _progress_bar(len(dataset), done, unit, not run.disable_tqdm) as advance:
        for number, rows in enumerate(chunks):
            if number in finished:
                continue
            chunk = dataset.select(rows)
            arrays: Arrays = {}
            for name, trainer in trainers.items():
                begun = time.perf_counter()
                output = trainer.predict(chunk, metric_key_prefix="chunk", **options)
                seconds = time.perf_counter() - begun
                metrics = output.metrics or {}
                built = metrics.get("chunk_jit_compilation_time", 0.0)
                build_seconds += built
                for key in ("optimized", "original"):
                    calls[key] += int(metrics.get(f"chunk_cpuaccel_calls_{key}", 0))
                applied |= _applied(metrics)
                arrays[f"{name}_seconds"] = np.array(seconds - built)
                for index, values in enumerate(_outputs(output.predictions)):
                    arrays[f"{name}_{index}"] = values
            partial.save(number, arrays)
            finished[number] = arrays
            advance(len(rows))
    order = np.argsort(np.concatenate(chunks), kind="stable")
    ordered = [finished[number] for number in range(len(chunks))]
    optimizing = trainers.get(OPTIMIZED)
    return Predicted(
        {name: _join(name, ordered, order) for name in trainers},
        len(dataset),
        build_seconds,
        None if optimizing is None or optimizing.optimized is None else optimizing.optimized.report,
        calls,
        applied,
    )


def _trainers(
    model: transformers.PreTrainedModel,
    collator: Collator,
    run: RunArguments,
    reduce: Reduce | None,
    generation: Generation | None,
) -> dict[str, CpuaccelTrainer]:
    quiet = copy.copy(run)
    quiet.disable_tqdm = True  # a bar for each chunk would interrupt ours
    plain = copy.copy(quiet)
    plain.jit_mode_eval = plain.use_ipex = plain.bf16 = plain.bf16_full_eval = False
    plain.cpuaccel_backends = plain.cpuaccel_pipeline = None
    make: Callable[..., CpuaccelTrainer] = CpuaccelTrainer
    if generation is not None:
        make = functools.partial(GeneratingTrainer, processing_class=generation.tokenizer)
    make = functools.partial(make, data_collator=collator, preprocess_logits_for_metrics=reduce)
    if not run.changes_the_model:
        return {EAGER: make(model, plain)}
    trainers = {}
    if run.compare_with_eager:
        trainers[EAGER] = make(model, plain)
        # With bf16_full_eval, Trainer casts the given model in place.
        model = copy.deepcopy(model)
    trainers[OPTIMIZED] = make(model, quiet)
    if run.bf16_full_eval:
        # Trainer casts the model, but not sound or images.
        trainers[OPTIMIZED].data_collator = functools.partial(_in_bfloat16, collator)
    return trainers


def _applied(metrics: Mapping[str, float]) -> dict[str, int]:
    """Read which steps were applied, by name."""
    found = {}
    for name, value in metrics.items():
        step = name.removeprefix("chunk_cpuaccel_").removesuffix("_applied")
        if name == f"chunk_cpuaccel_{step}_applied":
            found[step] = int(value)
    return found


def _in_bfloat16(collator: Collator, rows: list[Any]) -> dict[str, Any]:
    return {
        name: values.bfloat16() if values.is_floating_point() else values
        for name, values in collator(rows).items()
    }


def _chunks(count: int, lengths: Sequence[int] | None, batch_size: int) -> list[Array]:
    """Return the rows of each chunk, in the order of prediction.

    Batches have rows of similar length and are distributed evenly over the chunks, so that the
    estimate of the progress bar holds and speedups of chunks can be compared.
    """
    order = np.arange(count)
    if lengths is not None:
        order = np.argsort(-np.asarray(lengths), kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    chunks = -(-len(batches) // CHUNK_BATCHES)
    return [np.concatenate(batches[number::chunks]) for number in range(chunks)]


def _outputs(predictions: Any) -> list[Array]:
    """Return the arrays among the outputs, without nested ones such as hidden states."""
    if isinstance(predictions, np.ndarray):
        return [predictions]
    return [values for values in predictions if isinstance(values, np.ndarray)]


def _join(name: str, chunks: Sequence[Arrays], order: Array) -> Predictions:
    outputs: list[Array] = []
    while f"{name}_{len(outputs)}" in chunks[0]:
        parts = [chunk[f"{name}_{len(outputs)}"] for chunk in chunks]
        outputs.append(_concatenate(parts)[order])
    return Predictions(tuple(outputs), [float(chunk[f"{name}_seconds"]) for chunk in chunks])


def _concatenate(parts: Sequence[Array]) -> Array:
    widest = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
    whole = np.full((sum(map(len, parts)), *widest), PADDING, dtype=parts[0].dtype)
    start = 0
    for part in parts:
        whole[(slice(start, start + len(part)), *map(slice, part.shape[1:]))] = part
        start += len(part)
    return whole


@contextmanager
def _progress_bar(
    total: int, done: int, unit: str, shown: bool
) -> Iterator[Callable[[int], object]]:
    logger = logging.getLogger("cpuaccel")
    with (
        tqdm(total=total, initial=done, unit=unit, disable=not shown, file=sys.stderr) as bar,
        logging_redirect_tqdm([logger]),
    ):
        yield bar.update
