"""Generated texts as streams, a few at a time."""

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from cpuaccel.errors import ClosedError, QueueFullError
from cpuaccel.integrations.tasks.generate import Generate, Messages
from cpuaccel.integrations.tasks.rows import IDS
from cpuaccel.model.signature import MASK


@dataclass
class Completion:
    """A text while it is generated.

    Attributes:
        prompt_tokens: tokens of the prompt.
        completion_tokens: generated tokens, known at the end.
        finish_reason: ``stop`` or ``length``, known at the end.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    finish_reason: str = "length"


class _Cancelled(transformers.StoppingCriteria):
    """Stops a generation whose caller has gone."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set())


class Streams:
    """Generates with a bounded number of threads and of callers that wait."""

    def __init__(self, task: Generate, *, workers: int = 1, waiting: int = 32) -> None:
        """Take a task; ``workers`` texts are generated at a time, each with torch's threads."""
        self.task = task
        self.room = workers + waiting
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="cpuaccel-generate")
        self._calls = 0
        self._running: set[_Cancelled] = set()
        self._closed = False

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer that the model has positions for."""
        config: Any = self.task.model.config
        config = config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or sys.maxsize

    @property
    def calls(self) -> int:
        """Texts that are generated or wait."""
        return self._calls

    def tokenize(self, messages: Messages) -> torch.Tensor:
        """Tokenize a chat by the chat template; shape (1, length)."""
        return torch.tensor([self.task.encode([messages])[0].inputs[IDS]])

    async def stream(
        self, completion: Completion, ids: torch.Tensor, options: dict[str, Any]
    ) -> AsyncGenerator[str]:
        """Yield an empty text once there is a place, then the text in pieces.

        Closing the iterator ends the generation.

        Args:
            completion: complete at the end.
            ids: a prompt, shape (1, length).
            options: arguments of ``generate``, with ``max_new_tokens``.

        Raises:
            QueueFullError: as many calls wait as may.
            ClosedError: the streams are closed.
        """
        if self._closed:
            raise ClosedError("the server is shutting down")
        if self._calls >= self.room:
            raise QueueFullError(f"{self._calls} texts are generated or wait", retry_after=1.0)
        self._calls += 1
        future: asyncio.Future[torch.Tensor] | None = None
        cancelled = _Cancelled()
        self._running.add(cancelled)
        try:
            yield ""
            streamer: Any = transformers.AsyncTextIteratorStreamer(
                self.task.tokenizer, skip_prompt=True, skip_special_tokens=True
            )

            def generate() -> torch.Tensor:
                try:
                    return self.task.generate(
                        {IDS: ids, MASK: torch.ones_like(ids)},
                        streamer=streamer,
                        stopping_criteria=transformers.StoppingCriteriaList([cancelled]),
                        **options,
                    )
                finally:
                    streamer.end()  # unblocks the reader after an exception

            future = asyncio.get_running_loop().run_in_executor(self._executor, generate)
            async for piece in streamer:
                if piece:
                    yield piece
            output = await future
            completion.completion_tokens = output.shape[1] - ids.shape[1]
            if completion.completion_tokens < options["max_new_tokens"]:
                completion.finish_reason = "stop"
        finally:
            self._calls -= 1
            self._running.discard(cancelled)
            cancelled.event.set()
            if future is not None:
                future.cancel()

    async def close(self, timeout: float) -> bool:
        """Refuse new calls, wait for the others, end what is left; return whether none was."""
        self._closed = True
        try:
            async with asyncio.timeout(timeout):
                while self._calls:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            for cancelled in self._running:
                cancelled.event.set()
            return False
        self._executor.shutdown()
        return True
