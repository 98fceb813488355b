"""Loading the task that a worker computes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpuaccel.errors import CpuaccelError

if TYPE_CHECKING:
    from cpuaccel.integrations.tasks.served import PipelineLike, ServedModel

Kind = Literal["embed", "classify", "classify_tokens", "rerank", "generate"]


def load_task(kind: Kind, model: str | Path, pipeline: "PipelineLike", **options: Any) -> Any:
    """Load and optimize a model for a kind of task; see ``cpuaccel.integrations.tasks``."""
    from cpuaccel.integrations import tasks

    loaders: dict[Kind, Callable[..., ServedModel]] = {
        "embed": tasks.load_embedder,
        "classify": tasks.load_classifier,
        "classify_tokens": tasks.load_token_classifier,
        "rerank": tasks.load_reranker,
        "generate": tasks.load_generator,
    }
    return loaders[kind](model, pipeline, **options)


def check_kind(shared: Kind, wanted: Kind, asked: str) -> None:
    """Check that a model was shared for what it is used for.

    Raises:
        CpuaccelError: it was shared for another kind of task.
    """
    if shared != wanted:
        raise CpuaccelError(
            f"the model was shared to {shared}, but {asked} was asked for. Pass share(..., "
            f'kind="{wanted}")'
        )
