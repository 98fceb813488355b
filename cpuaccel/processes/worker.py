"""One process of a pool: loads the folder, and answers calls until the pool closes it."""

import faulthandler
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import TYPE_CHECKING

from cpuaccel.errors import WorkerError, describe_error

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reply:
    """What a call came to.

    Attributes:
        output: what the model returned, packed; None if it raised.
        sizes: bytes of each buffer of the output. If there are some, the descriptor of their memory
            is sent next.
        error: what it raised.
        calls: ``report.calls`` of the process.
    """

    output: bytes | None = None
    sizes: tuple[int, ...] = ()
    error: Exception | None = None
    calls: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Folder:
    """What a process loads.

    Attributes:
        path: a saved model.
        again: where to save it once more if something was not kept for this number of threads, so
            that the other processes need not build it, too.
    """

    path: str
    again: str | None = None


def serve(
    connection: Connection,
    make_model: "Callable[[], torch.nn.Module] | None",
    threads: int,
) -> None:
    """Load, reply whether that worked, then answer each call."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool, which ends this process
    faulthandler.enable()
    import torch

    import cpuaccel
    from cpuaccel.processes.transfer import Buffers, pack, unpack, write_memory

    torch.set_num_threads(threads)
    try:
        folder: Folder = connection.recv()
    except EOFError:  # the pool could not start
        return
    try:
        model = cpuaccel.load(folder.path, None if make_model is None else make_model())
        if folder.again is not None and model.report.not_restored and make_model is None:
            model.save(folder.again)
            model = cpuaccel.load(folder.again)
    except Exception as error:  # models of users raise any type
        connection.send(Reply(error=_sendable(error)))
        return
    model.report.reset_calls()
    connection.send(Reply())
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:  # the pool was closed, or its process ended
            return
        try:
            method, args, kwargs = unpack(data)
            function = model if method is None else getattr(model, method)
            apart: Buffers = []
            output = pack(function(*args, **kwargs), apart)
            memory, sizes = write_memory(apart)
        except Exception as error:  # engines and models raise any type
            connection.send(Reply(error=_sendable(error), calls=model.report.calls))
            continue
        with os.fdopen(memory, "rb"):
            connection.send(Reply(output, sizes, calls=model.report.calls))
            if sizes:
                send_handle(connection, memory, os.getppid())


def _sendable(error: Exception) -> Exception:
    """Return an error that can be unpickled: some can't."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:
        return WorkerError(f"a call in a process of the pool raised {describe_error(error)}")
    return error
