"""Making the application: routes, limits, health, metrics, and draining at the end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

try:
    from fastapi import FastAPI, Response
    from fastapi.responses import JSONResponse
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
except ImportError as error:
    raise ImportError(
        "cpuaccel.integrations.http needs fastapi and prometheus-client, which can't be imported "
        f'({error}). Run: pip install ".[serving]"'
    ) from error

from cpuaccel.errors import CpuaccelError
from cpuaccel.integrations.batching import Batcher
from cpuaccel.integrations.batching.metrics import BatcherCollector
from cpuaccel.integrations.http.calls import CallsCollector
from cpuaccel.integrations.http.chat import chat_router
from cpuaccel.integrations.http.errors import add_error_handlers
from cpuaccel.integrations.http.gate import Gate
from cpuaccel.integrations.http.streams import Streams
from cpuaccel.integrations.http.texts import embeddings_router, rerank_router
from cpuaccel.integrations.tasks import Embed, Generate, Rerank

logger = logging.getLogger("cpuaccel.http")


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and how long it may take.

    Attributes:
        max_bytes: largest body.
        max_texts: most texts of a request.
        max_prompt_tokens: longest prompt of a chat.
        max_new_tokens: most tokens to generate.
        body_timeout: seconds in which a body has to arrive.
        timeout: seconds for embeddings and scores, waiting included.
        chat_timeout: seconds for a chat, waiting included.
        drain_timeout: seconds for what is under way when the server stops.
    """

    max_bytes: int = 4 * 2**20
    max_texts: int = 1024
    max_prompt_tokens: int = 4096
    max_new_tokens: int = 2048
    body_timeout: float = 10.0
    timeout: float = 30.0
    chat_timeout: float = 300.0
    drain_timeout: float = 30.0


def create_app(
    *,
    embeddings: Embed | None = None,
    rerank: Rerank | None = None,
    chat: Generate | None = None,
    name: str = "default",
    tokens: int | None = None,
    limits: Limits = Limits(),
) -> FastAPI:
    """Make the application; a server of your choice runs it.

    Routes: ``/v1/embeddings``, ``/v1/rerank`` and ``/v1/chat/completions`` for the tasks given,
    ``/health`` (503 while the server drains, or after a variant was switched off), ``/metrics``.

    Args:
        embeddings: the task of ``/v1/embeddings``.
        rerank: the task of ``/v1/rerank``.
        chat: the task of ``/v1/chat/completions``.
        name: the name of the model in requests and responses.
        tokens: most real tokens of a batch. Default: that of ``Batcher``.
        limits: what a request may ask for.

    Raises:
        CpuaccelError: no task was given.
    """
    tasks = {"embeddings": embeddings, "rerank": rerank, "chat": chat}
    served: dict[str, Embed | Rerank | Generate] = {
        kind: task for kind, task in tasks.items() if task is not None
    }
    if not served:
        raise CpuaccelError("create_app() has nothing to serve. Pass embeddings=, rerank= or chat=")
    budget = {} if tokens is None else {"tokens": tokens}
    batchers: dict[str, Batcher[Any, Any, Any]] = {}
    registry = CollectorRegistry()
    state = _State(served, batchers)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await state.drain(limits.drain_timeout)

    app = FastAPI(title="cpuaccel", lifespan=lifespan)
    if embeddings is not None:
        batchers["embeddings"] = Batcher(embeddings, **budget)
        app.include_router(
            embeddings_router(batchers["embeddings"], name, limits.max_texts, limits.timeout)
        )
    if rerank is not None:
        batchers["rerank"] = Batcher(rerank, **budget)
        app.include_router(
            rerank_router(batchers["rerank"], name, limits.max_texts, limits.timeout)
        )
    if chat is not None:
        state.streams = Streams(chat)
        app.include_router(
            chat_router(
                state.streams,
                name,
                limits.max_prompt_tokens,
                limits.max_new_tokens,
                limits.chat_timeout,
            )
        )
    registry.register(BatcherCollector(batchers))
    registry.register(CallsCollector(served))
    add_error_handlers(app)
    app.add_middleware(
        Gate,
        registry=registry,
        max_bytes=limits.max_bytes,
        body_timeout=limits.body_timeout,
    )

    @app.get("/health")
    async def health() -> JSONResponse:
        status, body = state.health()
        return JSONResponse(body, status)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    app.state.cpuaccel = state
    return app


class _State:
    """What is served, and whether it goes on."""

    def __init__(
        self,
        served: Mapping[str, Embed | Rerank | Generate],
        batchers: Mapping[str, Batcher[Any, Any, Any]],
    ) -> None:
        self.served = served
        self.batchers = batchers
        self.streams: Streams | None = None
        self.draining = False

    def health(self) -> tuple[int, dict[str, object]]:
        """Return the status and the body of ``/health``."""
        if self.draining:
            return 503, {"status": "draining"}
        faults = {kind: task.faults for kind, task in self.served.items() if task.faults}
        if faults:
            return 503, {"status": "not accelerated", "faults": faults}
        return 200, {"status": "ok"}

    async def drain(self, timeout: float) -> None:
        """Answer what waits, and refuse new calls."""
        self.draining = True
        closing = [asyncio.to_thread(each.close, timeout) for each in self.batchers.values()]
        chats = [] if self.streams is None else [self.streams.close(timeout)]
        if not all(await asyncio.gather(*closing, *chats)):
            logger.warning("requests were under way for more than %g s and were ended", timeout)
