"""The route for chats."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from cpuaccel.integrations.http.errors import error_of, too_large
from cpuaccel.integrations.http.schemas import ChatRequest, Usage
from cpuaccel.integrations.http.streams import Completion, Streams
from cpuaccel.integrations.http.texts import check_name


def chat_router(
    streams: Streams, name: str, max_prompt: int, max_new: int, timeout: float
) -> APIRouter:
    """Make the route ``/v1/chat/completions``."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(request: ChatRequest) -> Any:
        check_name(request.model, name)
        options = _options(request)
        messages = [message.model_dump() for message in request.messages]
        ids = await asyncio.to_thread(streams.tokenize, messages)
        if ids.shape[1] > max_prompt:
            raise too_large(f"the prompt has {ids.shape[1]} tokens, more than {max_prompt}")
        room = min(max_new, streams.context - ids.shape[1])
        asked = options.get("max_new_tokens", min(room, streams.task.options["max_new_tokens"]))
        if not 0 < asked <= room:
            raise too_large(
                f"max_tokens must be <= {max_new}, and <= {streams.context} with the "
                f"{ids.shape[1]} tokens of the prompt, got {asked}"
            )
        options["max_new_tokens"] = asked
        completion = Completion(ids.shape[1])
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        pieces = streams.stream(completion, ids, options)
        await anext(pieces)  # has a place now, or has raised
        head = {"id": identity, "created": int(time.time()), "model": name}
        if request.stream:
            with_usage = request.stream_options is not None and request.stream_options.include_usage
            events = _events(pieces, completion, head, with_usage, timeout)
            return StreamingResponse(events, media_type="text/event-stream")
        async with asyncio.timeout(timeout), aclosing(pieces):
            text = "".join([piece async for piece in pieces])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason}
        usage = _usage(completion)
        return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}

    return router


def _options(request: ChatRequest) -> dict[str, Any]:
    """Return the arguments of ``generate``; those of the model's own config where none is given."""
    options: dict[str, Any] = {}
    most = request.max_completion_tokens or request.max_tokens
    if most is not None:
        options["max_new_tokens"] = most
    if request.temperature is not None:
        options["do_sample"] = request.temperature > 0
        if request.temperature > 0:
            options["temperature"] = request.temperature
    if request.top_p is not None and request.temperature != 0:
        options |= {"do_sample": True, "top_p": request.top_p}
    return options


def _usage(completion: Completion) -> dict[str, int]:
    total = completion.prompt_tokens + completion.completion_tokens
    return Usage(
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        total_tokens=total,
    ).model_dump()


async def _events(
    pieces: AsyncGenerator[str],
    completion: Completion,
    head: dict[str, object],
    with_usage: bool,
    timeout: float,
) -> AsyncIterator[str]:
    """Yield the events of a stream; an error is one of them, since the status was sent."""
    head = {**head, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice]})

    try:
        async with asyncio.timeout(timeout), aclosing(pieces):
            yield chunk({"role": "assistant", "content": ""})
            async for piece in pieces:
                yield chunk({"content": piece})
        yield chunk({}, completion.finish_reason)
        if with_usage:
            yield _event({**head, "choices": [], "usage": _usage(completion)})
        yield "data: [DONE]\n\n"
    except Exception as error:
        status, message, _ = error_of(error)
        yield _event({"error": {"message": message, "type": "server_error", "code": status}})


def _event(data: dict[str, object]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
