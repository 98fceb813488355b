"""The HTTP application in replicas of Ray Serve."""

from pathlib import Path
from typing import Any

from ray import serve

from cpuaccel.errors import CpuaccelError
from cpuaccel.integrations.ray.assigned import use_assigned_cpus
from cpuaccel.integrations.ray.sharing import Shared
from cpuaccel.integrations.workers.loading import Kind, load_task

Model = str | Path | Shared

KINDS: dict[str, Kind] = {"embeddings": "embed", "rerank": "rerank", "chat": "generate"}
"""The kind of task behind each argument of ``create_app``."""

ONGOING = 256
"""Requests that a replica has at a time, of which most wait in its queue."""


def application(
    *,
    embeddings: Model | None = None,
    rerank: Model | None = None,
    chat: Model | None = None,
    pipeline: Any = None,
    name: str = "default",
    tokens: int | None = None,
    limits: Any = None,
    **deployment: Any,
) -> serve.Application:
    """Make an application with the routes of ``cpuaccel.integrations.http.create_app``.

    Each replica has its own model and batches by tokens. Ray replaces a replica one of whose
    variants was switched off.

    Example:

        serve.run(application(embeddings=folder, num_replicas=2,
                              ray_actor_options={"num_cpus": 2}))

    Args:
        embeddings: a folder, a hub id or what ``share`` returned.
        rerank: likewise, a cross-encoder.
        chat: likewise, a decoder.
        pipeline: see ``cpuaccel.integrations.tasks.load_embedder``; for all three.
        name: the name of the model in requests and responses.
        tokens: most real tokens of a batch. Default: that of ``Batcher``.
        limits: ``cpuaccel.integrations.http.Limits``.
        **deployment: options of ``serve.deployment``. ``max_ongoing_requests`` is 256 by default:
            a replica batches what it has received, and Ray's own default are five.
    """
    models = {"embeddings": embeddings, "rerank": rerank, "chat": chat}
    named = {kind: model for kind, model in models.items() if model is not None}
    options = {"name": name, "tokens": tokens} | ({} if limits is None else {"limits": limits})
    deployment = {"max_ongoing_requests": ONGOING, **deployment}
    deployed: Any = serve.deployment(**deployment)(serve.ingress()(Replica))
    bound: serve.Application = deployed.bind(named, pipeline, options)
    return bound


class Replica:
    """One replica: loads its models, and serves the application."""

    def __init__(self, models: dict[str, Model], pipeline: Any, options: dict[str, Any]) -> None:
        use_assigned_cpus()
        self.tasks: dict[str, Any] = {}
        for route, model in models.items():
            source = model.unpacked() if isinstance(model, Shared) else model
            self.tasks[route] = load_task(KINDS[route], source, pipeline)
        self._options = options

    def __serve_build_asgi_app__(self) -> Any:
        """Make the application."""
        from cpuaccel.integrations.http import create_app

        return create_app(**self.tasks, **self._options)

    def check_health(self) -> None:
        """Tell Ray whether this replica is as fast as it was built to be.

        Raises:
            CpuaccelError: a variant was switched off.
        """
        faults = {kind: task.faults for kind, task in self.tasks.items() if task.faults}
        if faults:
            raise CpuaccelError(f"variants were switched off: {faults}")
