"""Optimized models in sentence-transformers.

Example:

    from cpuaccel.integrations import sentence_transformers as accelerated

    fast = accelerated.optimize(model, ["bettertransformer"])
    fast.encode(texts)  # the same embeddings; the first call builds the model
    print(accelerated.report(fast))
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack, cast

import torch

import cpuaccel
from cpuaccel.errors import CpuaccelError, ModelError
from cpuaccel.model.signature import Inputs, cloned
from cpuaccel.report import Report

if TYPE_CHECKING:
    from cpuaccel.tuning.request import TuneArguments

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
    example_texts: Sequence[str] | Sequence[tuple[str, str]] | None = None,
    **tuning: "Unpack[TuneArguments]",
) -> Encoder:
    """Optimize the transformer in a sentence-transformers model.

    Tokenizing, sorting by length, batching, pooling and other modules are unchanged. Of models for
    texts and images, such as CLIP, the parts that each kind of input needs are optimized at its
    first ``encode``.

    Args:
        model: a ``SentenceTransformer`` or ``CrossEncoder``, which is unchanged.
        backends: see ``cpuaccel.optimize``. ``"auto"`` requires ``example_texts``.
        pipeline: see ``cpuaccel.optimize``.
        dtype: see ``cpuaccel.optimize``. Embeddings keep the model's own dtype.
        strict: see ``cpuaccel.optimize``.
        tolerance: see ``cpuaccel.optimize``; of the token embeddings or the scores.
        example_texts: only with ``"auto"``: texts as in your real calls, pairs of texts for a
            ``CrossEncoder``. Candidates are measured on the batches that ``encode`` or ``predict``
            makes of them, 32 rows each.
        **tuning: only with ``"auto"``, see ``cpuaccel.tuning.request.TuneArguments``.

    Returns:
        A copy in eval mode that shares the weights. The first ``encode`` or ``predict`` builds it;
        with ``"auto"`` it is built already. With several processes, each builds its own and has its
        own report.

    Raises:
        CpuaccelError: ``"auto"`` without ``example_texts``, or these without ``"auto"``.
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
    if (backends == "auto") != (example_texts is not None):
        raise CpuaccelError(
            'pass backends="auto" and example_texts= together: a search is measured on texts, and '
            "the first encode or predict builds other backends"
        )
    fast = cast(Encoder, cpuaccel.shared_copy(model))
    transformer = fast[0]
    assert isinstance(transformer, Transformer)
    batches = None if example_texts is None else _batches(fast, transformer.model, example_texts)
    transformer.model = cpuaccel.optimize(
        transformer.model,
        backends,
        pipeline=pipeline,
        dtype=dtype,
        strict=strict,
        tolerance=tolerance,
        example_inputs=batches,
        **tuning,
    )
    return fast


def _batches(
    model: SentenceTransformer | CrossEncoder,
    transformer: torch.nn.Module,
    texts: Sequence[str] | Sequence[tuple[str, str]],
) -> list[Inputs]:
    """Return what the transformer is called with for these texts."""
    batches: list[Inputs] = []
    forward, own = transformer.forward, vars(transformer).get("forward")

    @functools.wraps(forward)
    def record(**inputs: object) -> object:
        batches.append(inputs)
        return forward(**inputs)

    encode = model.predict if isinstance(model, CrossEncoder) else model.encode
    transformer.forward = record  # it is called without the module's hooks
    try:
        encode(list(texts), show_progress_bar=False)  # type: ignore[operator]
    finally:
        del transformer.forward
        if own is not None:
            transformer.forward = own
    if not batches:
        raise ModelError(
            f"{type(model).__name__} does not call forward of {type(transformer).__name__} for "
            "these texts, so that a search can't measure it. Pass names of backends"
        )
    return [cloned(batch) for batch in batches]  # encode's are inference tensors


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
