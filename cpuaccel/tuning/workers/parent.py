"""The search's side of the worker processes: start, watch and end them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

import psutil
import torch
from pydantic import TypeAdapter

from cpuaccel.errors import describe_exit
from cpuaccel.tuning.decisions.result import CandidateStatus
from cpuaccel.tuning.workers import messages
from cpuaccel.tuning.workers.messages import Job, Message

POLL_SECONDS = 0.1
MOST_PRINTED = 2**20
"""Bytes from the end of a crashed process's output that are read: faulthandler prints a line for
each frame of each thread after the process's own last line."""

LAST_LINE = 300
"""Characters of a crashed process's last line of output that are reported."""


class WorkerFailure(Exception):  # noqa: N818  # a result of a trial, not an error
    """A worker process ended, or was ended, before it replied."""

    def __init__(self, status: CandidateStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Workers:
    """Worker processes that are started together, each with a job; without a launcher, one."""

    def __init__(
        self,
        jobs: Sequence[Job],
        subject: IO[bytes],
        memory_limit: int,
        launcher: Sequence[str] = (),
    ) -> None:
        self.peak = 0  # highest resident memory seen, in bytes, with that of child processes
        self.paused_seconds = 0.0
        self._memory_limit = memory_limit
        self._outputs = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        lifeline_end, lifeline = os.pipe()
        self._lifeline = os.fdopen(lifeline, "wb")
        # Each process takes its descriptors from its standard input, the only one that survives
        # torch's launcher.
        handover, standard_input = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channels: list[socket.socket] = []
        self._buffers = [b""] * len(jobs)
        try:
            with handover, standard_input:
                self._process = self._start(launcher, standard_input)
                for job in jobs:
                    channel, channel_end = socket.socketpair()
                    self._channels.append(channel)
                    files = (subject.fileno(), self._outputs.fileno())
                    with channel_end, contextlib.suppress(BrokenPipeError):
                        descriptors = (channel_end.fileno(), *files, lifeline_end)
                        socket.send_fds(handover, [b"\0"], descriptors)
                    channel.settimeout(POLL_SECONDS)
                    self._send(channel, job)
        except BaseException:
            self._lifeline.close()
            raise
        finally:
            os.close(lifeline_end)

    # The methods that wait for replies raise WorkerFailure after so many seconds.

    def built(self, limit: float) -> list[messages.Built | messages.Refused]:
        """Wait until the candidate is built and its outputs are compared."""
        return self._receive(messages.BUILD, limit, "during the build", building=True)

    def measure(self, seconds: float, limit: float) -> list[messages.Rounds]:
        """Time the candidate in turn with eager."""
        self._send_all(messages.Time(seconds, with_eager=True))
        return self._receive(messages.ROUNDS, limit, "during timing")

    def run(self, seconds: float, limit: float) -> list[messages.Passes]:
        """Time passes of the candidate, in all processes at the same time."""
        self._send_all(messages.Time(seconds, with_eager=False))
        return self._receive(messages.PASSES, limit, "while running")

    def outputs(self) -> list[list[torch.Tensor]]:
        """Return the tensors of the candidate's outputs, batch by batch."""
        self._outputs.seek(0)
        outputs: list[list[torch.Tensor]] = torch.load(self._outputs, weights_only=True)
        return outputs

    def pause(self) -> None:
        """Stop the processes and their children until ``resume``."""
        self._stopped = time.monotonic()
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after ``pause``."""
        self.paused_seconds += time.monotonic() - self._stopped
        os.killpg(self._process.pid, signal.SIGCONT)

    def resident(self, *, children: bool = True) -> int:
        """Return the resident memory in bytes, with that of child processes by default."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            started = process.children(recursive=True) if children else []
            for one in (process, *started):
                with contextlib.suppress(psutil.Error):
                    total += one.memory_info().rss
        self.peak = max(self.peak, total)
        return total

    def close(self) -> None:
        """Kill the processes and all their children."""
        # A launcher's processes have groups of their own, which end with the lifeline.
        self._lifeline.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for channel in self._channels:
            channel.close()
        self._outputs.close()
        self._printed.close()

    def _start(
        self, launcher: Sequence[str], standard_input: socket.socket
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603  # our own interpreter
            # -P: no modules from the working directory.
            [*launcher, sys.executable, "-P", "-m", "cpuaccel.tuning.workers.child"],
            stdin=standard_input.fileno(),
            stdout=self._printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
            start_new_session=True,  # a process group, to kill its children as well
        )

    def _send_all(self, message: object) -> None:
        for channel in self._channels:
            self._send(channel, message)

    def _send(self, channel: socket.socket, message: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # reading reports that the process ended
            channel.sendall(messages.encode(message).encode())

    def _receive(
        self, kind: TypeAdapter[Message], seconds: float, doing: str, *, building: bool = False
    ) -> list[Message]:
        deadline = time.monotonic() + seconds
        replies = []
        for number, channel in enumerate(self._channels):
            while b"\n" not in self._buffers[number]:
                # Looking for children reads all of /proc, which would disturb the timing.
                if self.resident(children=building) > self._memory_limit:
                    raise WorkerFailure(
                        CandidateStatus.OUT_OF_MEMORY,
                        f"used {self.peak / 2**30:.1f} GiB {doing}, more than the "
                        f"{self._memory_limit / 2**30:.1f} GiB allowed",
                    )
                try:
                    data = channel.recv(1 << 16)
                except TimeoutError:
                    if time.monotonic() > deadline:
                        raise WorkerFailure(
                            CandidateStatus.TIMED_OUT, f"timed out after {seconds:.0f} s {doing}"
                        ) from None
                    continue
                except ConnectionResetError:
                    data = b""
                if not data:
                    raise self._crashed(doing)
                self._buffers[number] += data
            line, _, self._buffers[number] = self._buffers[number].partition(b"\n")
            replies.append(messages.decode(line, kind))
        return replies

    def _crashed(self, doing: str) -> WorkerFailure:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # of several processes one ended
            how = "a process ended"
        else:
            if -code == signal.SIGKILL:
                reason = f"the system killed the process {doing}"
                return WorkerFailure(CandidateStatus.OUT_OF_MEMORY, reason)
            how = f"the process {describe_exit(code)}"
        return WorkerFailure(CandidateStatus.CRASHED, f"{how} {doing}{self._last_line()}")

    def _last_line(self) -> str:
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - MOST_PRINTED))
        lines = self._printed.read().decode(errors="replace").split("\n")
        # faulthandler's own lines say no more than the signal does.
        end = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python")), None)
        printed = [line.strip() for line in lines[:end] if line.strip()]
        return f": {printed[-1][:LAST_LINE]}" if printed else ""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """In the main thread, let SIGTERM unwind the stack, unless it has another handler."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if default:
            signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread
        default = False
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
