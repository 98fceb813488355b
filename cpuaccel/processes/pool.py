"""The pool: one object that is called like a model, and runs it in several processes."""

import contextlib
import logging
import multiprocessing.connection
import os
import queue
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.reduction import recv_handle
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from cpuaccel.errors import ClosedError, CpuaccelError, WorkerError, describe_exit
from cpuaccel.model.signature import ExampleInputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.plugin.host import host
from cpuaccel.processes.pinned import PinnedProcess, core_sets, on_cores
from cpuaccel.processes.transfer import map_memory, pack, unpack
from cpuaccel.processes.worker import Folder, Reply, serve

if TYPE_CHECKING:
    from cpuaccel.tuning.decisions.result import Tuning

logger = logging.getLogger("cpuaccel")

PENDING = 2
"""Batches of ``map`` for each process that are computed or wait."""

CLOSING_SECONDS = 5.0
"""For which a process may end by itself."""


class ProcessPool:
    """An optimized model in several processes at the same time, each pinned to its own cores.

    All processes load one saved folder, and share what ``cpuaccel.load`` maps of it. A process that
    ends fails the call that it computes, and is replaced before the next one.

    Programs need ``if __name__ == "__main__":`` around their code, as for ``multiprocessing``.

    Example::

        fast = cpuaccel.optimize(model, "auto", example_inputs=batch, target="throughput")
        with cpuaccel.ProcessPool(fast) as pool:
            for output in pool.map(batches):
                ...
    """

    def __init__(
        self,
        model: OptimizedModel | str | Path,
        *,
        processes: int | None = None,
        threads: int | None = None,
        make_model: Callable[[], torch.nn.Module] | None = None,
    ) -> None:
        """Start the processes, and wait until each has loaded the model and verified it.

        Args:
            model: an optimized model, which is saved to a temporary folder, or a folder that
                ``OptimizedModel.save`` wrote.
            processes: their number. Default: what a search with ``target="throughput"`` found for
                this model, or as many as the cores allow.
            threads: threads, and cores, of each process. Default: what the search found, or 1.
            make_model: makes the model for ``cpuaccel.load``, where the folder can't: a function
                that can be imported.

        Raises:
            ArtifactError: the model can't be saved or loaded.
            CpuaccelError: there are not as many cores.
            WorkerError: a process ended while it loaded the model.
        """
        processes, threads = split(model, processes, threads)
        cores = core_sets(processes, threads)
        self._closed = False
        self._temporary = tempfile.TemporaryDirectory(prefix="cpuaccel-")
        saved = Path(self._temporary.name) / "model"
        folder = saved if isinstance(model, OptimizedModel) else Path(model)
        self._workers = [_Worker(each, make_model, threads) for each in cores]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="cpuaccel-pool")
        try:
            for worker in self._workers:  # all import at the same time
                worker.start()
            if isinstance(model, OptimizedModel):
                model.save(folder)
            self._load(folder, Path(self._temporary.name) / f"for {threads} threads")
            for worker in self._workers:
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> tuple[PinnedProcess, ...]:
        """The processes, with their ``pid`` and ``cores``."""
        return tuple(worker.process for worker in self._workers if worker.process is not None)

    @property
    def calls(self) -> Counter[str]:
        """Number of calls by ``cpuaccel.report.CallKey``, of all processes together."""
        return sum((worker.calls for worker in self._workers), Counter())

    def submit(self, *args: object, **kwargs: object) -> "Future[Any]":
        """Call the model in the next idle process.

        Returns:
            A future with the output. Its ``result`` raises what the model raised, or
            ``WorkerError`` if the process ended during the call.

        Raises:
            ClosedError: the pool is closed.
            Exception: the inputs can't be pickled.
        """
        return self._submit(None, args, kwargs)

    def submit_generate(self, *args: object, **kwargs: object) -> "Future[Any]":
        """Call the model's ``generate``; see ``submit``."""
        return self._submit("generate", args, kwargs)

    def map(self, batches: Iterable[ExampleInputs]) -> Iterator[Any]:
        """Call the model on each batch, and yield the outputs in order.

        At most two batches for each process are read ahead, so there may be any number of them.

        Args:
            batches: each a mapping by parameter name, a tuple of positional inputs, or one tensor.
        """
        pending: deque[Future[Any]] = deque()
        try:
            for batch in batches:
                if len(pending) == PENDING * len(self._workers):
                    yield pending.popleft().result()
                pending.append(self._submit(None, *_arguments(batch)))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Compute what was submitted, and end the processes."""
        self._closed = True
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()
        self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self.close()

    def _load(self, folder: Path, again: Path) -> None:
        """Load in all processes; only one builds what was not kept for their number of threads."""
        first, *others = self._workers
        first.load(folder, again)
        first.wait_until_loaded()
        folder = again if again.exists() else folder
        first.folder = folder
        for worker in others:  # all load at the same time
            worker.load(folder)
        for worker in others:
            worker.wait_until_loaded()

    def _submit(
        self, method: str | None, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> "Future[Any]":
        if self._closed:
            raise ClosedError("the ProcessPool is closed and takes no more calls")
        return self._threads.submit(self._compute, pack((method, args, kwargs)))

    def _compute(self, data: bytes) -> Any:
        worker = self._idle.get()
        try:
            # Elsewhere this thread would wait for, or interrupt, a process that computes.
            with on_cores(worker.cores):
                return worker.call(data)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, which is started again after it ended."""

    def __init__(
        self,
        cores: tuple[int, ...],
        make_model: Callable[[], torch.nn.Module] | None,
        threads: int,
    ) -> None:
        self.process: PinnedProcess | None = None
        self.folder = Path()
        self.cores = cores
        self._arguments = (make_model, threads)
        self._ended: Counter[str] = Counter()  # the calls of processes that ended
        self._calls: Counter[str] = Counter()

    @property
    def calls(self) -> Counter[str]:
        """The calls so far."""
        return self._ended + self._calls

    def start(self) -> None:
        """Start the process."""
        self._connection, end = multiprocessing.Pipe()
        self.process = PinnedProcess(
            self.cores, target=serve, args=(end, *self._arguments), daemon=True
        )
        try:
            self.process.start()
        finally:
            end.close()  # so that reading ends when the process does

    def load(self, folder: Path, again: Path | None = None) -> None:
        """Load a folder; ``again`` is where to save what had to be built."""
        self.folder = folder
        # A process that has ended is told of by wait_until_loaded.
        with contextlib.suppress(OSError):
            self._connection.send(Folder(str(folder), None if again is None else str(again)))

    def wait_until_loaded(self) -> None:
        """Raise what loading raised, or that the process ended."""
        self._receive(
            "while it loaded the model. Its output has the reason. Programs that make a "
            'ProcessPool need `if __name__ == "__main__":` around their code'
        )

    def call(self, data: bytes) -> Any:
        """Call the model, in a new process if the last one ended."""
        # Not is_alive, which needs this process to be the one that waits for its children.
        if self.process is not None and multiprocessing.connection.wait([self.process.sentinel], 0):
            logger.warning("%s", self._end("between two calls. Starting a new one"))
        if self.process is None:
            self.start()
            self.load(self.folder)
            self.wait_until_loaded()
        doing = "during the call, which has no answer. The next call starts a new one"
        try:
            self._connection.send_bytes(data)
        except OSError:
            raise self._end(doing) from None
        reply = self._receive(doing)
        self._calls = reply.calls
        assert reply.output is not None
        return unpack(reply.output, self._receive_memory(reply.sizes, doing))

    def close(self) -> None:
        """End the process."""
        if self.process is None:
            return
        self._connection.close()
        self.process.join(CLOSING_SECONDS)
        self.process.kill()
        self.process.join()
        self.process = None

    def _receive(self, doing: str) -> Reply:
        try:
            reply: Reply = self._connection.recv()
        except (EOFError, OSError):
            raise self._end(doing) from None
        if reply.error is not None:
            self._calls = reply.calls
            raise reply.error
        return reply

    def _receive_memory(self, sizes: Sequence[int], doing: str) -> list[memoryview]:
        if not sizes:
            return []
        try:
            descriptor = recv_handle(self._connection)
        except (EOFError, OSError):
            raise self._end(doing) from None
        with os.fdopen(descriptor, "rb"):
            return map_memory(descriptor, sizes)

    def _end(self, doing: str) -> WorkerError:
        """Forget a process that ended, and return the error that says how."""
        process = self.process
        assert process is not None
        process.join(CLOSING_SECONDS)
        code = process.exitcode
        how = "ended" if code is None else describe_exit(code)
        identity = process.pid
        self.close()
        self._ended, self._calls = self._ended + self._calls, Counter()
        cores = ", ".join(map(str, self.cores))
        return WorkerError(f"process {identity} on cores {cores} {how} {doing}")


def split(
    model: OptimizedModel | str | Path, processes: int | None, threads: int | None
) -> tuple[int, int]:
    """Return the numbers of processes and of threads."""
    if processes is None and threads is None and isinstance(model, OptimizedModel):
        tuning: Tuning | None = model.report.tuning  # type: ignore[assignment]
        best = None if tuning is None else tuning.best_instances
        if best is not None:
            return best.count, best.threads
    cores = host().cores
    if processes is None:
        threads = 1 if threads is None else threads
        processes = max(1, cores // max(1, threads))
    elif threads is None:
        threads = max(1, cores // max(1, processes))
    return processes, threads


def _arguments(batch: ExampleInputs) -> tuple[tuple[object, ...], Mapping[str, object]]:
    if isinstance(batch, Mapping):
        return (), batch
    if isinstance(batch, torch.Tensor):
        return (batch,), {}
    if isinstance(batch, tuple):
        return batch, {}
    raise CpuaccelError(
        f"a batch must be a mapping, a tuple or a tensor, got {type(batch).__name__}. Pass inputs "
        "by name, such as a tokenizer returns"
    )
