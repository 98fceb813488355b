"""Models of sentence-transformers with their optimized transformers, in folders."""

from pathlib import Path
from typing import Any, TypeVar

from sentence_transformers import CrossEncoder, SentenceTransformer

import cpuaccel
from cpuaccel.integrations import sentence_transformers as accelerated
from cpuaccel.integrations.tasks.served import PipelineLike, arguments, refuse_pipeline
from cpuaccel.optimized import OptimizedModel

Encoder = TypeVar("Encoder", SentenceTransformer, CrossEncoder)

_ARTIFACT = "optimized"
"""The folder with the artifact, in a model's folder."""


def default_prompt(encoder: SentenceTransformer | CrossEncoder) -> str | None:
    """Return the prompt that the model puts before texts by default."""
    name = encoder.default_prompt_name
    return None if name is None else encoder.prompts[name]


def optimized_encoder(encoder: Encoder, source: str | Path, pipeline: PipelineLike) -> Encoder:
    """Optimize a model that was loaded from ``source``, or load what ``save_encoder`` wrote there.

    Raises:
        CpuaccelError: ``source`` has an artifact, with its own pipeline, and one was passed.
    """
    artifact = Path(source) / _ARTIFACT
    if not artifact.is_dir():
        return accelerated.optimize(encoder, **arguments(pipeline))
    refuse_pipeline(source, pipeline)
    transformer: Any = encoder[0]
    transformer.model = cpuaccel.load(artifact, transformer.model)
    return encoder


def save_encoder(
    encoder: SentenceTransformer | CrossEncoder, model: OptimizedModel, folder: Path
) -> None:
    """Write a model of sentence-transformers, and the artifact of its transformer in it."""
    encoder.save_pretrained(str(folder))
    model.save(folder / _ARTIFACT)
