"""Batches of rows from many callers, for one model."""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Generic, Self, TypeVar

from cpuaccel.errors import ClosedError, CpuaccelError, ForkError, QueueFullError
from cpuaccel.integrations.batching.groups import TOKENS
from cpuaccel.integrations.batching.isolation import Failed, compute_isolated
from cpuaccel.integrations.batching.queue import Entry, Request, WaitingRows
from cpuaccel.integrations.batching.stats import Stats
from cpuaccel.integrations.batching.task import Row, Task

Item = TypeVar("Item")
RowT = TypeVar("RowT", bound=Row)
Output = TypeVar("Output")

QUEUE = 64
"""Batches that may wait."""


@dataclass(frozen=True)
class Answer(Generic[Output]):
    """The outputs for one call, in its order, and the number of tokens in it."""

    outputs: list[Output]
    tokens: int


class Batcher(Generic[Item, RowT, Output]):
    """Computes rows of many callers in common batches, from threads and from asyncio.

    An idle worker takes what waits at once; when all are busy, the next free one takes the queue.
    So a lone call pays for no delay, and batches grow with the load. A batch has rows of similar
    length and at most ``tokens`` real tokens, and always the row that has waited longest.

    A batch that raises is halved until only the row that raises fails. Other callers do not
    notice it.

    Example:

        with Batcher(load_embedder(folder)) as batcher:
            batcher.compute(["a text", "another"]).outputs  # from any thread
            (await batcher.acompute(["a text"])).outputs  # in asyncio
    """

    def __init__(
        self,
        task: Task[Item, RowT, Output],
        *,
        tokens: int = TOKENS,
        queue: int | None = None,
        workers: int = 1,
    ) -> None:
        """Start no thread yet: the first call does.

        Args:
            task: tokenizes and computes; see ``cpuaccel.integrations.tasks``.
            tokens: most real tokens of a batch. A longer row is a batch by itself.
            queue: most tokens that wait. Default: those of 64 batches.
            workers: threads that compute, each with all of torch's threads.

        Raises:
            CpuaccelError: a number is below 1, or the queue can't hold a batch.
        """
        queue = QUEUE * tokens if queue is None else queue
        for name, value, least in (
            ("tokens", tokens, 1),
            ("queue", queue, tokens),
            ("workers", workers, 1),
        ):
            if value < least:
                raise CpuaccelError(f"{name} must be >= {least}, got {value}")
        self.task = task
        self.tokens = tokens
        self.queue = queue
        self.workers = workers
        self._waiting: WaitingRows[RowT, Output] = WaitingRows()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()
        self._closed = False
        self._stats = Stats()

    @property
    def stats(self) -> Stats:
        """The counters, as a copy."""
        with self._changed:
            return replace(self._stats)

    @property
    def waiting(self) -> tuple[int, int]:
        """Rows and tokens that wait."""
        with self._changed:
            return len(self._waiting), self._waiting.tokens

    @property
    def closed(self) -> bool:
        """Whether new calls are refused."""
        return self._closed

    def compute(self, items: Sequence[Item], timeout: float | None = None) -> Answer[Output]:
        """Tokenize and compute in this thread's name.

        Args:
            items: what ``task.encode`` takes, such as texts.
            timeout: seconds to wait for the outputs. Default: without limit.

        Raises:
            QueueFullError: the rows do not fit into the queue now.
            ClosedError: the batcher is closed.
            ForkError: see ``submit``.
            TimeoutError: there was no answer in time.
            Exception: what the task raised for one of the rows.
        """
        self._check_process()
        rows = self.task.encode(items)
        future = self.submit(rows)
        try:
            return Answer(future.result(timeout), _tokens(rows))
        finally:
            future.cancel()

    async def acompute(self, items: Sequence[Item], timeout: float | None = None) -> Answer[Output]:
        """Do the same as ``compute`` without blocking the event loop.

        Cancelling the call takes its rows out of the queue.
        """
        self._check_process()
        async with asyncio.timeout(timeout):
            rows = await asyncio.to_thread(self.task.encode, items)
            return Answer(await asyncio.wrap_future(self.submit(rows)), _tokens(rows))

    def submit(self, rows: Sequence[RowT]) -> "Future[list[Output]]":
        """Queue rows that ``task.encode`` returned, all or none of them.

        Returns:
            A future with the outputs, in order. It can be cancelled at any time.

        Raises:
            QueueFullError: the rows do not fit into the queue now.
            ClosedError: the batcher is closed.
            ForkError: the process was forked since the batcher was made.
        """
        self._check_process()
        request: Request[Output] = Request(len(rows))
        tokens = _tokens(rows)
        with self._changed:
            if self._closed:
                raise ClosedError("the Batcher is closed and takes no more calls")
            waiting = self._waiting.tokens
            if waiting and waiting + tokens > self.queue:
                self._stats.rejected += 1
                raise QueueFullError(
                    f"{tokens} tokens do not fit into the queue, where {waiting} of {self.queue} "
                    "wait. Try again later",
                    retry_after=self._seconds_for(waiting),
                )
            self._stats.requests += 1
            if not rows:
                self._stats.answered += 1
                request.future.set_result([])
                return request.future
            self._waiting.add(request, rows)
            self._start()
            self._changed.notify(len(rows))
        request.future.add_done_callback(self._discard)
        return request.future

    def close(self, timeout: float | None = None) -> bool:
        """Refuse new calls, and answer those that wait.

        Args:
            timeout: seconds to wait for the answers. Default: without limit. Rows that still wait
                then fail with ``ClosedError``.

        Returns:
            Whether all were answered.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        drained = not any(thread.is_alive() for thread in self._threads)
        with self._changed:
            rest = self._waiting.take_all()
        for request in {entry.request for entry in rest}:
            request.fail(ClosedError("the Batcher was closed before this call was computed"))
        return drained

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ForkError(
                "the Batcher was made before the process was forked: its threads do not exist "
                "here. Make it after the fork, such as when the server starts its workers"
            )

    def _start(self) -> None:
        while len(self._threads) < self.workers:
            name = f"cpuaccel-batcher-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._run(batch)

    def _next_batch(self) -> list[Entry[RowT, Output]]:
        """Wait for rows; return none when the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) or self._closed)
            return self._waiting.take(self.tokens) if len(self._waiting) else []

    def _run(self, batch: list[Entry[RowT, Output]]) -> None:
        batch = [entry for entry in batch if not entry.request.future.done()]
        if not batch:
            return
        begun = time.monotonic()
        outputs = compute_isolated(self.task.run, [entry.row for entry in batch])
        failed = any(isinstance(output, Failed) for output in outputs)
        with self._changed:
            self._count(batch, begun)
            self._stats.retries += failed and len(batch) > 1
        for entry, output in zip(batch, outputs):
            if isinstance(output, Failed):
                unfinished = entry.request.fail(output.error)
                with self._changed:
                    self._stats.failed += unfinished
            elif entry.request.answer(entry.index, output):
                with self._changed:
                    self._stats.answered += 1

    def _count(self, batch: list[Entry[RowT, Output]], begun: float) -> None:
        lengths = [entry.row.tokens for entry in batch]
        stats = self._stats
        stats.batches += 1
        stats.rows += len(batch)
        stats.tokens += sum(lengths)
        stats.padded += len(batch) * max(lengths)
        stats.computing += time.monotonic() - begun
        stats.waiting += sum(begun - entry.arrived for entry in batch)

    def _discard(self, future: "Future[list[Output]]") -> None:
        """Take the rows of a request out of the queue that was cancelled or failed."""
        if future.cancelled() or future.exception() is not None:
            with self._changed:
                self._waiting.discard(future)
                self._stats.cancelled += future.cancelled()

    def _seconds_for(self, tokens: int) -> float:
        """Estimate how long so many tokens take."""
        if not self._stats.tokens:
            return 1.0
        return tokens * self._stats.computing / self._stats.tokens / self.workers


def _tokens(rows: Sequence[Row]) -> int:
    return sum(row.tokens for row in rows)
