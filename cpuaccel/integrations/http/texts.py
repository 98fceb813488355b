"""The routes for embeddings and reranking."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException

from cpuaccel.integrations.batching import Batcher
from cpuaccel.integrations.http.errors import too_large
from cpuaccel.integrations.http.schemas import (
    Document,
    Embedding,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Ranked,
    RerankRequest,
    RerankResponse,
    Usage,
)


def check_name(asked: str | None, name: str) -> None:
    """Refuse a request for another model."""
    if asked is not None and asked != name:
        raise HTTPException(404, f"there is no model {asked!r} here. Available: {name}")


def _check_count(texts: Sequence[str], most: int) -> None:
    if len(texts) > most:
        raise too_large(f"{len(texts)} texts in a request are more than {most}")


def embeddings_router(
    batcher: Batcher[str, Any, Any], name: str, max_texts: int, timeout: float
) -> APIRouter:
    """Make the route ``/v1/embeddings``."""
    router = APIRouter()

    @router.post("/v1/embeddings")
    async def embeddings(request: EmbeddingsRequest) -> EmbeddingsResponse:
        check_name(request.model, name)
        texts = [request.input] if isinstance(request.input, str) else request.input
        _check_count(texts, max_texts)
        answer = await batcher.acompute(texts, timeout)
        as_base64 = request.encoding_format == "base64"
        data = [
            Embedding(index=index, embedding=_base64(output) if as_base64 else output.tolist())
            for index, output in enumerate(answer.outputs)
        ]
        usage = Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens)
        return EmbeddingsResponse(data=data, model=name, usage=usage)

    return router


def _base64(embedding: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode()


def rerank_router(
    batcher: Batcher[tuple[str, str], Any, float], name: str, max_texts: int, timeout: float
) -> APIRouter:
    """Make the route ``/v1/rerank``."""
    router = APIRouter()

    @router.post("/v1/rerank", response_model_exclude_none=True)
    async def rerank(request: RerankRequest) -> RerankResponse:
        check_name(request.model, name)
        _check_count(request.documents, max_texts)
        pairs = [(request.query, document) for document in request.documents]
        answer = await batcher.acompute(pairs, timeout)
        order = sorted(range(len(pairs)), key=answer.outputs.__getitem__, reverse=True)
        results = [
            Ranked(
                index=index,
                relevance_score=answer.outputs[index],
                document=Document(text=pairs[index][1]) if request.return_documents else None,
            )
            for index in order[: request.top_n]
        ]
        usage = Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens)
        return RerankResponse(model=name, results=results, usage=usage)

    return router
