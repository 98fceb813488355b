"""Optimized models in sentence-transformers.

Example::

    from cpuaccel.integrations import sentence_transformers as accelerated

    fast = accelerated.optimize(model, ["bettertransformer"])
    fast.encode(texts)  # the same embeddings; the first call builds the model
    print(accelerated.report(fast))
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, cast

import torch

import cpuaccel
from cpuaccel.errors import ModelError
from cpuaccel.report import Report

try:
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.base.modules import Transformer
except ImportError as error:
    raise ImportError(
        "cpuaccel.integrations.sentence_transformers needs sentence-transformers >= 5.7, which "
        f'can\'t be imported ({error}). Run: pip install ".[sentence-transformers]"'
    ) from error

Encoder = TypeVar("Encoder", SentenceTransformer, CrossEncoder)


def optimize(
    model: Encoder,
    backends: Iterable[str | cpuaccel.Step] | None = None,
    *,
    pipeline: str | Path | cpuaccel.Pipeline | None = None,
    dtype: torch.dtype | str | None = None,
    strict: bool = False,
    tolerance: float | None = None,
) -> Encoder:
    """Optimize the transformer in a sentence-transformers model.

    Tokenizing, sorting by length, batching, pooling and other modules are unchanged. Of models for
    texts and images, such as CLIP, the parts that each kind of input needs are optimized at its
    first ``encode``.

    Args:
        model: a ``SentenceTransformer`` or ``CrossEncoder``, which is unchanged.
        backends: see ``cpuaccel.optimize``.
        pipeline: see ``cpuaccel.optimize``.
        dtype: see ``cpuaccel.optimize``. Embeddings keep the model's own dtype.
        strict: see ``cpuaccel.optimize``.
        tolerance: see ``cpuaccel.optimize``; of the token embeddings or the scores.

    Returns:
        A copy in eval mode that shares the weights. The first ``encode`` or ``predict`` builds it.
        With several processes, each builds its own and has its own report.

    Raises:
        ModelError: ``model`` has another type, or does not start with a ``Transformer``.
        PipelineError: the pipeline is invalid; lists every mistake.
    """
    if not isinstance(model, (SentenceTransformer, CrossEncoder)):
        raise ModelError(
            f"model must be a SentenceTransformer or CrossEncoder, got {type(model).__name__}. Use "
            "cpuaccel.optimize for other models"
        )
    if not isinstance(model[0], Transformer):
        raise ModelError(
            f"{type(model).__name__} must start with a Transformer, got {type(model[0]).__name__}. "
            "Only transformers can be optimized"
        )
    fast = cast(Encoder, cpuaccel.shared_copy(model))
    transformer = fast[0]
    assert isinstance(transformer, Transformer)
    transformer.model = cpuaccel.optimize(
        transformer.model,
        backends,
        pipeline=pipeline,
        dtype=dtype,
        strict=strict,
        tolerance=tolerance,
    )
    return fast


def report(model: SentenceTransformer | CrossEncoder) -> Report:
    """Return the report of a model that ``optimize`` returned.

    Raises:
        ModelError: the model is not optimized.
    """
    transformer = getattr(model[0], "model", None)
    if not isinstance(transformer, cpuaccel.OptimizedModel):
        raise ModelError(
            f"this {type(model).__name__} is not optimized, so it has no report. Pass the model "
            "that optimize returned"
        )
    return transformer.report
