"""The search's side of a worker process: started, watched, and ended for sure."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Self

import psutil
import torch

from cpuaccel.tuning.workers.messages import (
    Built,
    Job,
    Measured,
    Message,
    Refused,
    Turn,
    tell,
    understand,
)

POLL_SECONDS = 0.1
LAST_WORDS = 300
"""Characters of what a process printed last that are told when it died."""


class Died(Exception):  # noqa: N818  # it is a finding, not an error
    """A worker process ended, or was ended, before it had answered.

    Attributes:
        kind: ``crashed``, ``timed out`` or ``out of memory``.
        reason: what happened.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Worker:
    """One candidate's process.

    Attributes:
        peak: most bytes that it and what it started were seen to hold.
        paused_seconds: for which it was stopped.
    """

    def __init__(self, job: Job, subject: IO[bytes], memory_limit: int) -> None:
        """Start it.

        Args:
            job: what it is to do.
            subject: what ``ship`` wrote.
            memory_limit: bytes that it and what it starts may hold.
        """
        self.peak = 0
        self.paused_seconds = 0.0
        self._memory_limit = memory_limit
        self._buffer = b""
        self._outputs = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        commands, command_end = os.pipe()
        self._answers, answer_end = os.pipe()
        lifeline_end, self._lifeline = os.pipe()
        theirs = (commands, answer_end, subject.fileno(), self._outputs.fileno(), lifeline_end)
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter
                # -P: what lies in the working directory is no module of ours.
                [sys.executable, "-P", "-m", "cpuaccel.tuning.workers.child", *map(str, theirs)],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
                },
                start_new_session=True,  # so that it can be killed with all that it starts
            )
        except BaseException:
            os.close(command_end)
            os.close(self._answers)
            os.close(self._lifeline)
            raise
        finally:
            for end in (commands, answer_end, lifeline_end):
                os.close(end)
        self._commands = os.fdopen(command_end, "w", encoding="utf-8")
        with contextlib.suppress(BrokenPipeError):
            tell(job, self._commands)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def built(self, seconds: float) -> Built | Refused:
        """Wait until it has built the candidate and compared its answers."""
        message = self._receive(seconds, "while it was built and proven", building=True)
        assert isinstance(message, (Built, Refused))
        return message

    def measure(self, seconds: float, limit: float) -> Measured:
        """Have it timed against eager."""
        message = self._ask({"measure": seconds}, limit, "while it was measured")
        assert isinstance(message, Measured)
        return message

    def turn(self, seconds: float, limit: float) -> Turn:
        """Have it timed by itself."""
        message = self._ask({"turn": seconds}, limit, "in the run-off")
        assert isinstance(message, Turn)
        return message

    def pause(self) -> None:
        """Stop it and what it started, until ``resume``: another is to have the machine."""
        self._stopped = time.monotonic()
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.paused_seconds += time.monotonic() - self._stopped
        os.killpg(self._process.pid, signal.SIGCONT)

    def outputs(self) -> list[list[torch.Tensor]]:
        """The tensors of its outputs, batch by batch."""
        self._outputs.seek(0)
        outputs: list[list[torch.Tensor]] = torch.load(self._outputs, weights_only=True)
        return outputs

    def resident(self, *, children: bool = True) -> int:
        """Bytes that it holds now, with what it started unless ``children`` is False."""
        held = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            started = process.children(recursive=True) if children else []
            for one in (process, *started):
                with contextlib.suppress(psutil.Error):
                    held += one.memory_info().rss
        self.peak = max(self.peak, held)
        return held

    def close(self) -> None:
        """End it, with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._commands.close()
        for end in (self._answers, self._lifeline):
            with contextlib.suppress(OSError):
                os.close(end)
        self._outputs.close()
        self._printed.close()

    def _ask(self, command: dict[str, float], limit: float, doing: str) -> Message:
        with contextlib.suppress(BrokenPipeError):  # it died: that is told on reading
            self._commands.write(json.dumps(command) + "\n")
            self._commands.flush()
        return self._receive(limit, doing)

    def _receive(self, seconds: float, doing: str, *, building: bool = False) -> Message:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], POLL_SECONDS)
            # Looking for children reads all of /proc, and would disturb what is being timed.
            if self.resident(children=building) > self._memory_limit:
                raise Died(
                    "out of memory",
                    f"it held {self.peak / 2**30:.1f} GiB {doing}, more than the "
                    f"{self._memory_limit / 2**30:.1f} GiB allowed",
                )
            if ready:
                read = os.read(self._answers, 1 << 16)
                if not read:
                    raise self._crashed(doing)
                self._buffer += read
            elif time.monotonic() > deadline:
                raise Died("timed out", f"it took longer than {seconds:.0f} s {doing}")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return understand(line.decode())

    def _crashed(self, doing: str) -> Died:
        code = self._process.wait()
        if code >= 0:
            how = f"its process exited with code {code}"
        elif -code == signal.SIGKILL:
            return Died("out of memory", f"its process was killed by the system {doing}")
        else:
            how = f"its process was ended by {signal.Signals(-code).name}"
        return Died("crashed", f"{how} {doing}{self._last_words()}")

    def _last_words(self) -> str:
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - 8 * LAST_WORDS))
        lines = self._printed.read().decode(errors="replace").split("\n")
        # faulthandler's own lines say no more than the signal does.
        end = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python")), None)
        said = [line.strip() for line in lines[:end] if line.strip()]
        return f": {said[-1][:LAST_WORDS]}" if said else ""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, where it would end the process at once.

    Only in the main thread, and only where nobody else handles it.
    """

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
