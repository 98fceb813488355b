"""Callable classes for ``Dataset.map_batches``, one model in each actor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from cpuaccel.errors import CpuaccelError, describe_error
from cpuaccel.integrations.batching.groups import TOKENS
from cpuaccel.integrations.batching.isolation import Failed, compute_in_groups, compute_isolated
from cpuaccel.integrations.ray.sharing import Kind, Shared, load_task
from cpuaccel.integrations.ray.threads import use_assigned_cpus

Batch = dict[str, Any]

ERROR = "error"
"""The column that says why a row has no output."""


class _Worker:
    """Computes a column of a block.

    The whole block is tokenized, sorted by length, cut into batches of at most ``tokens`` tokens,
    and put back into its order. A row that can't be computed gets a null, and its error in the
    column ``error``, which is null for all others. If no row of a block can be computed, the block
    fails: then the model is at fault, not the rows.
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
            if model.kind != self.kind:
                raise CpuaccelError(
                    f"the model was shared to {model.kind}, but {type(self).__name__} was asked "
                    f'for. Pass share(..., kind="{self.kind}")'
                )
            model = model.unpacked()
        self._task = load_task(self.kind, model, pipeline, **options)
        self._column = column
        self._to = to
        self._tokens = tokens

    def __call__(self, batch: Batch) -> Batch:
        """Compute one block, as a dictionary of numpy arrays; see ``Dataset.map_batches``."""
        if ERROR in batch:
            raise CpuaccelError(f"the column {ERROR!r} is there already. Drop or rename it before")
        items = list(batch[self._column])
        outputs: list[Any] = [None] * len(items)
        errors: list[Exception | None] = [None] * len(items)
        places, rows = self._encode(items, errors)
        for place, output in zip(places, compute_in_groups(self._task.run, rows, self._tokens)):
            if isinstance(output, Failed):
                errors[place] = output.error
            else:
                outputs[place] = output
        if rows and all(outputs[place] is None for place in places):
            raise next(error for error in errors if error is not None)
        texts = [None if error is None else describe_error(error) for error in errors]
        return {**batch, self._to: self._array(outputs), ERROR: pa.array(texts, pa.string())}

    def _encode(
        self, items: list[Any], errors: list[Exception | None]
    ) -> tuple[list[int], list[Any]]:
        """Tokenize what is a text; return the places of the rows, and the rows."""
        places = []
        for place, item in enumerate(items):
            if isinstance(item, str):
                places.append(place)
            else:
                errors[place] = TypeError(f"expected a text, got {type(item).__name__}")

        def encode(texts: Sequence[str]) -> Sequence[Any]:
            rows: Sequence[Any] = self._task.encode(texts)
            return rows

        found = compute_isolated(encode, [items[place] for place in places]) if places else []
        for place, row in zip(places, found):
            if isinstance(row, Failed):
                errors[place] = row.error
        encoded = [(p, row) for p, row in zip(places, found) if not isinstance(row, Failed)]
        return [place for place, _ in encoded], [row for _, row in encoded]

    def _array(self, outputs: list[Any]) -> pa.Array:
        """Make a column, with nulls for rows without an output."""
        raise NotImplementedError


class Embed(_Worker):
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


class Classify(_Worker):
    """The most probable label of each text: structs of ``label`` and ``score``."""

    kind = "classify"

    def _array(self, outputs: list[Any]) -> pa.Array:
        labels = [None if output is None else vars(output) for output in outputs]
        return pa.array(labels, pa.struct({"label": pa.string(), "score": pa.float64()}))


class ClassifyTokens(_Worker):
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


class Generate(_Worker):
    """The text that is generated for each prompt."""

    kind = "generate"

    def _array(self, outputs: list[Any]) -> pa.Array:
        return pa.array(outputs, pa.string())
