"""sentence-transformers, encoding and predicting through an optimized model.

Example::

    from cpuaccel.integrations import sentence_transformers as accelerated

    fast = accelerated.optimize(model, ["bettertransformer"])
    fast.encode(texts)  # the same embeddings; the first call builds
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
        "cpuaccel.integrations.sentence_transformers was imported, but sentence-transformers 5.7 "
        f'or newer can\'t be ({error}). Run: pip install "cpuaccel[sentence-transformers]"'
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
    """Make the transformer in a model of sentence-transformers fast on this CPU.

    Tokenizing, sorting by length, batching, pooling and what else the model has stay as they are.

    Args:
        model: a ``SentenceTransformer`` or a ``CrossEncoder``; stays as it is.
        backends: see ``cpuaccel.optimize``, and for the others too.
        pipeline: instead of ``backends``: a TOML file, or a ``Pipeline``.
        dtype: ``float32`` or ``bfloat16``; embeddings keep the model's own dtype.
        strict: raise where a step can't be applied or the optimized model can't answer.
        tolerance: largest accepted difference of the token embeddings or the scores, relative to
            their largest magnitude.

    Returns:
        A copy that shares the weights, in eval mode. It builds on the first ``encode`` or
        ``predict``. ``report`` tells about it. Of several processes each builds for itself and
        has its own report.

    Raises:
        ModelError: ``model`` is neither, or doesn't begin with a ``Transformer``.
        PipelineError: the pipeline can't be right; names every mistake.
        StepError: with ``strict``, what could not be applied.
    """
    if not isinstance(model, (SentenceTransformer, CrossEncoder)):
        raise ModelError(
            f"a {type(model).__name__} was given. Pass a SentenceTransformer or a CrossEncoder; "
            "for any other model there is cpuaccel.optimize"
        )
    if not isinstance(model[0], Transformer):
        raise ModelError(
            f"a {type(model).__name__} that begins with a {type(model[0]).__name__} was given, "
            "which is no transformer to optimize. Pass one that begins with a Transformer"
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
    """What was done to a model that ``optimize`` gave back, and what answered the calls since.

    Raises:
        ModelError: its transformer is not an optimized one.
    """
    transformer = getattr(model[0], "model", None)
    if not isinstance(transformer, cpuaccel.OptimizedModel):
        raise ModelError(
            f"the report on a {type(model).__name__} was asked for, but it was not optimized. Pass "
            "what cpuaccel.integrations.sentence_transformers.optimize gave back"
        )
    return transformer.report
