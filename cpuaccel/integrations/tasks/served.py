"""What all tasks share: the optimized model, its report, and what it no longer serves."""

import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import transformers

import cpuaccel
from cpuaccel.artifact.layout import PIPELINE
from cpuaccel.optimized import OptimizedModel
from cpuaccel.report import Report

PipelineLike: TypeAlias = "str | Path | Sequence[str] | cpuaccel.Pipeline | None"
"""Names of backends, a TOML file or a ``Pipeline``; None for the default."""


EXAMPLES = ("a text to build with", "another text, which is a little longer")
"""Texts that a model is built with."""


class ServedModel:
    """An optimized model that a task computes with.

    Tokenizers can't be called from several threads at once: hold ``tokenizing`` around them.
    """

    def __init__(self, model: OptimizedModel) -> None:
        self.model = model
        self.tokenizing = threading.Lock()

    def save(self, folder: Path) -> None:
        """Write a folder that the function ``load_...`` of this task reads without a pipeline."""
        raise NotImplementedError

    @property
    def report(self) -> Report:
        """The report of the optimized model."""
        return self.model.report

    @property
    def calls(self) -> Counter[str]:
        """Number of calls by ``cpuaccel.report.CallKey``."""
        return self.report.calls

    @property
    def faults(self) -> list[str]:
        """Why variants are switched off: from then on the original serves their calls."""
        return [variant.off for variant in self.model.variants if variant.off]


def save_with_tokenizer(
    model: OptimizedModel, tokenizer: transformers.PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write an artifact that ``load_model`` reads."""
    with tempfile.TemporaryDirectory() as files:
        tokenizer.save_pretrained(files)
        model.save(folder, tokenizer=files)


def arguments(pipeline: PipelineLike) -> dict[str, Any]:
    """Return the arguments of ``cpuaccel.optimize`` for what a user passes as ``pipeline``."""
    named = isinstance(pipeline, Sequence) and not isinstance(pipeline, str)
    return {"backends": pipeline} if named else {"pipeline": pipeline}


def refuse_pipeline(source: str | Path, pipeline: PipelineLike) -> None:
    """Refuse a pipeline for what was saved with its own.

    Raises:
        CpuaccelError: one was passed.
    """
    if pipeline is not None:
        raise cpuaccel.CpuaccelError(
            f"{source} was saved with a pipeline of its own. Leave out pipeline={pipeline!r}"
        )


def load_model(
    model: str | Path, auto_class: str, pipeline: PipelineLike
) -> tuple[OptimizedModel, transformers.PreTrainedTokenizerBase]:
    """Load a model and its tokenizer: an artifact, or what ``from_pretrained`` reads.

    Raises:
        CpuaccelError: ``model`` is an artifact, which has its own pipeline, and one was passed.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    if (Path(model) / PIPELINE).is_file():
        refuse_pipeline(model, pipeline)
        return cpuaccel.load(model), tokenizer
    original = getattr(transformers, auto_class).from_pretrained(model).eval()
    return cpuaccel.optimize(original, **arguments(pipeline)), tokenizer
