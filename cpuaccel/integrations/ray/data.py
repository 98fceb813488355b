"""Callable classes for ``Dataset.map_batches``, one model in each actor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from cpuaccel.errors import CpuaccelError
from cpuaccel.integrations.batching.groups import TOKENS
from cpuaccel.integrations.ray.assigned import use_assigned_cpus
from cpuaccel.integrations.ray.sharing import Shared
from cpuaccel.integrations.workers.column import ERROR, SERVED_BY, compute_column
from cpuaccel.integrations.workers.loading import Kind, check_kind, load_task

Batch = dict[str, Any]


class Worker:
    """Computes a column of a block.

    The whole block is tokenized, sorted by length, cut into batches of at most ``tokens`` tokens,
    and put back into its order. A row that can't be computed gets a null, and its error in the
    column ``error``, which is null for all others. If none of more than eight rows of a block
    can be computed, the block fails: then the model is at fault, not the rows. The column
    ``served_by`` has the steps that were applied to the model that computed the row, or why the
    original did; see ``report``.
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        model: "str | Path | Shared",
        *,
        pipeline: "str | Path | Sequence[str] | None" = None,
        column: str = "text",
        to: str = "output",
        tokens: int = TOKENS,
        **options: Any,
    ) -> None:
        """Set the threads to the actor's ``num_cpus``, and load the model.

        Args:
            model: a folder that the worker sees, a hub id, or what ``share`` returned.
            pipeline: names of backends or a TOML file. Default: see ``cpuaccel.optimize``; of a
                shared model, its own.
            column: the column with the texts.
            to: the column to write.
            tokens: most real tokens of a batch.
            **options: only for ``Generate``: arguments of ``generate``.
        """
        use_assigned_cpus()
        if isinstance(model, Shared):
            check_kind(model.kind, self.kind, type(self).__name__)
            model = model.unpacked()
        self._task = load_task(self.kind, model, pipeline, **options)
        self._column = column
        self._to = to
        self.tokens = tokens

    def __call__(self, batch: Batch) -> Batch:
        """Compute one block, as a dictionary of numpy arrays; see ``Dataset.map_batches``."""
        for name in (ERROR, SERVED_BY):
            if name in batch:
                raise CpuaccelError(
                    f"the column {name!r} is there already. Drop or rename it before"
                )
        column = compute_column(self._task, list(batch[self._column]), self.tokens)
        return {
            **batch,
            self._to: self._array(column.outputs),
            ERROR: pa.array(column.errors, pa.string()),
            SERVED_BY: pa.array(column.served_by, pa.string()),
        }

    def _array(self, outputs: list[Any]) -> pa.Array:
        """Make a column, with nulls for rows without an output."""
        raise NotImplementedError


class Embed(Worker):
    """Embeddings by a model of sentence-transformers: lists of float32."""

    kind = "embed"

    def _array(self, outputs: list[Any]) -> pa.Array:
        width = self._task.dimensions
        values = np.zeros((len(outputs), width), np.float32)
        for row, output in zip(values, outputs):
            if output is not None:
                row[:] = output
        missing = pa.array([output is None for output in outputs], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width, mask=missing)


class Classify(Worker):
    """The most probable label of each text: structs of ``label`` and ``score``."""

    kind = "classify"

    def _array(self, outputs: list[Any]) -> pa.Array:
        labels = [None if output is None else vars(output) for output in outputs]
        return pa.array(labels, pa.struct({"label": pa.string(), "score": pa.float64()}))


class ClassifyTokens(Worker):
    """The entities of each text: lists of structs, with places in the text."""

    kind = "classify_tokens"

    _ENTITY = pa.struct(
        {
            "entity_group": pa.string(),
            "score": pa.float64(),
            "word": pa.string(),
            "start": pa.int64(),
            "end": pa.int64(),
        }
    )

    def _array(self, outputs: list[Any]) -> pa.Array:
        found = [
            None if output is None else [{**each, "score": float(each["score"])} for each in output]
            for output in outputs
        ]
        return pa.array(found, pa.list_(self._ENTITY))


class Generate(Worker):
    """The text that is generated for each prompt."""

    kind = "generate"

    def _array(self, outputs: list[Any]) -> pa.Array:
        return pa.array(outputs, pa.string())
