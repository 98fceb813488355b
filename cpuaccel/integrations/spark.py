"""Optimized models in Spark, as functions for ``pyspark.ml.functions.predict_batch_udf``.

Example::

    from cpuaccel.integrations import spark as accelerated

    embed = predict_batch_udf(
        accelerated.embed(folder), return_type=accelerated.EMBEDDING, batch_size=4096
    )
    out = df.withColumn("out", embed("text")).select("id", "out.*")

Each Python worker of an executor loads one model, with ``spark.task.cpus`` threads. Importing this
imports no torch, so that workers set their threads before engines are imported.
"""

import functools
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark import SparkFiles, TaskContext
from pyspark.sql.types import (
    ArrayType,
    DoubleType,
    FloatType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from cpuaccel.errors import CpuaccelError
from cpuaccel.integrations.batching.groups import TOKENS
from cpuaccel.integrations.workers.column import ERROR, SERVED_BY, compute_column
from cpuaccel.integrations.workers.loading import Kind, check_kind, load_task
from cpuaccel.integrations.workers.packed import trust_built, write_built
from cpuaccel.integrations.workers.threads import use_cpus

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Pipeline = str | Path | Sequence[str] | None
Predict = Callable[[Any], dict[str, Any]]


def _row(*outputs: StructField) -> StructType:
    """Return the type of a row: predict_batch_udf takes types, and no names of them."""
    told = (StructField(ERROR, StringType()), StructField(SERVED_BY, StringType()))
    return StructType([*outputs, *told])


EMBEDDING = _row(StructField("embedding", ArrayType(FloatType())))
"""The ``return_type`` for ``embed``."""

LABEL = _row(StructField("label", StringType()), StructField("score", DoubleType()))
"""The ``return_type`` for ``classify``."""

_ENTITY = StructType(
    [
        StructField("entity_group", StringType()),
        StructField("score", DoubleType()),
        StructField("word", StringType()),
        StructField("start", LongType()),
        StructField("end", LongType()),
    ]
)

ENTITIES = _row(StructField("entities", ArrayType(_ENTITY)))
"""The ``return_type`` for ``classify_tokens``."""

TEXT = _row(StructField("generated", StringType()))
"""The ``return_type`` for ``generate``."""


@dataclass(frozen=True)
class Shared:
    """A built model that Spark copies to the executors, from ``share``.

    Attributes:
        kind: what it was built for.
        name: that of the archive.
    """

    kind: Kind
    name: str


_archives: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of archives: executors fetch them as long as the program runs."""


def share(
    session: "SparkSession", model: str | Path, kind: Kind = "embed", *, pipeline: Pipeline = None
) -> Shared:
    """Build a model once, in this process, and let Spark copy it to the executors.

    Pass what it returns as ``model`` to the functions of this module. Executors need neither the
    folder nor a shared disk. One on a host of another kind applies the pipeline anew.

    Args:
        session: a session with a ``sparkContext``, which Spark Connect does not have.
        model: a folder here, or a hub id.
        kind: ``embed``, ``classify``, ``classify_tokens`` or ``generate``.
        pipeline: see ``cpuaccel.integrations.tasks.load_embedder``.
    """
    name = f"cpuaccel-{uuid.uuid4().hex}"
    files = tempfile.TemporaryDirectory(prefix="cpuaccel-")
    archive = Path(files.name) / f"{name}.tar"
    with archive.open("wb") as file:
        write_built(kind, model, pipeline, file)
    session.sparkContext.addArchive(f"{archive}#{name}")
    _archives.append(files)
    return Shared(kind, name)


def embed(
    model: str | Path | Shared, *, pipeline: Pipeline = None, tokens: int = TOKENS
) -> Callable[[], Predict]:
    """Return what makes embeddings; its ``return_type`` is ``EMBEDDING``.

    A batch is tokenized, sorted by length, cut by tokens and put back into its order. A row that
    can't be computed gets nulls, and the reason in ``error``. If none of more than eight rows of a
    batch can be computed, the task fails: then the model is at fault. ``served_by`` has the steps
    that were applied to the model that computed the row, or why the original did.

    Args:
        model: a folder that the executors see, a hub id, or what ``share`` returned.
        pipeline: see ``cpuaccel.integrations.tasks.load_embedder``; of a shared model, its own.
        tokens: most real tokens that are computed at once.
    """
    return functools.partial(_make_predict, "embed", model, pipeline, tokens, {})


def classify(
    model: str | Path | Shared, *, pipeline: Pipeline = None, tokens: int = TOKENS
) -> Callable[[], Predict]:
    """Return what finds the most probable label; ``LABEL``. See ``embed`` for the arguments."""
    return functools.partial(_make_predict, "classify", model, pipeline, tokens, {})


def classify_tokens(
    model: str | Path | Shared, *, pipeline: Pipeline = None, tokens: int = TOKENS
) -> Callable[[], Predict]:
    """Return what finds entities; ``ENTITIES``. See ``embed`` for the arguments."""
    return functools.partial(_make_predict, "classify_tokens", model, pipeline, tokens, {})


def generate(
    model: str | Path | Shared,
    *,
    pipeline: Pipeline = None,
    tokens: int = TOKENS,
    **options: object,
) -> Callable[[], Predict]:
    """Return what generates a text for each prompt; ``TEXT``. See ``embed`` for the others.

    Args:
        model: see ``embed``.
        pipeline: see ``embed``.
        tokens: see ``embed``.
        **options: arguments of ``generate``, such as ``max_new_tokens``.
    """
    return functools.partial(_make_predict, "generate", model, pipeline, tokens, options)


def _make_predict(
    kind: Kind,
    model: str | Path | Shared,
    pipeline: Pipeline,
    tokens: int,
    options: dict[str, object],
) -> Predict:
    """Load the model in a Python worker; Spark keeps what this returns for later batches."""
    context = TaskContext.get()
    if context is None:
        raise CpuaccelError("not in a task of Spark. Pass the function to predict_batch_udf")
    use_cpus(context.cpus())
    if isinstance(model, Shared):
        check_kind(model.kind, kind, kind)
        source: str | Path = SparkFiles.get(model.name)
        trust_built(Path(source))
    else:
        source = model
    task = load_task(kind, source, pipeline, **options)

    def predict(texts: Any) -> dict[str, Any]:
        # pandas has NaN for a null.
        items = [text if isinstance(text, str) else None for text in texts]
        column = compute_column(task, items, tokens)
        return {
            **_FIELDS[kind](column.outputs),
            ERROR: _strings(column.errors),
            SERVED_BY: _strings(column.served_by),
        }

    return predict


class _Arrays(list[Any]):
    """Rows of arrays or nulls. Spark looks for two dimensions, and then makes a list of it."""

    @property
    def shape(self) -> tuple[int, int]:
        """As that of a numpy array with two dimensions; Spark does not look at the second."""
        return len(self), 0


def _strings(values: Sequence[str | None]) -> "np.ndarray[Any, np.dtype[np.object_]]":
    return np.array(values, dtype=object)


def _label_fields(outputs: list[Any]) -> dict[str, Any]:
    return {
        "label": _strings([None if output is None else output.label for output in outputs]),
        "score": np.array([np.nan if output is None else output.score for output in outputs]),
    }


def _entity_fields(outputs: list[Any]) -> dict[str, Any]:
    rows = [
        None if output is None else [{**each, "score": float(each["score"])} for each in output]
        for output in outputs
    ]
    return {"entities": _Arrays(rows)}


_FIELDS: dict[Kind, Callable[[list[Any]], dict[str, Any]]] = {
    "embed": lambda outputs: {"embedding": _Arrays(outputs)},
    "classify": _label_fields,
    "classify_tokens": _entity_fields,
    "generate": lambda outputs: {"generated": _strings(outputs)},
}
"""The columns of the outputs, by the names in the return types."""
