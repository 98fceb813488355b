"""Several processes of one candidate side by side, each pinned, through torch's own launcher."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from cpuaccel.checks.probes import Probe
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import Instances
from cpuaccel.tuning.workers.pickling import ship

SECONDS = 3.0
"""For which all instances answer calls at the same time."""

LAUNCHER = "torch.backends.xeon.run_cpu"
READY, RESULT, GO = "ready-", "result-", "go"


class LaunchFailed(Exception):  # noqa: N818  # it is a finding, not an error
    """The launcher's processes did not answer. The message says what they said last."""


@dataclass(frozen=True)
class InstanceJob:
    """What each instance is to do.

    Attributes:
        steps: names of the backends, in order.
        precision: of the pipeline.
        tolerance: as ``optimize`` takes it.
        weights: how often each batch is called.
        seconds: for which it is to answer calls.
        search: id of the search's process; without it there is nothing to wait for.
    """

    steps: tuple[str, ...]
    precision: str
    tolerance: float | None
    weights: tuple[float, ...]
    seconds: float
    search: int


def splits(cores: int) -> list[int]:
    """Numbers of processes that share the cores evenly: 1, 2, 4 and so on."""
    return [2**n for n in range(cores.bit_length()) if 2**n <= cores]


def measure_instances(
    model: torch.nn.Module,
    references: Sequence[Probe],
    weights: tuple[float, ...],
    candidate: Candidate,
    *,
    count: int,
    cores: int,
    tolerance: float | None,
    deadline: float,
) -> Instances:
    """Have several processes build the candidate and answer calls at the same time.

    Args:
        model: the original.
        references: what is called.
        weights: how often each batch is called.
        candidate: what is built in each process.
        count: processes.
        cores: that they share.
        tolerance: as ``optimize`` takes it.
        deadline: when to give up, on ``time.monotonic``'s clock.

    Raises:
        LaunchFailed: the processes did not come to an end in time, or failed.
    """
    job = InstanceJob(
        candidate.steps, candidate.precision, tolerance, weights, SECONDS, os.getpid()
    )
    each = cores // count
    allowed = sorted(os.sched_getaffinity(0))[: count * each]
    with tempfile.TemporaryDirectory(prefix="cpuaccel-") as name:
        folder = Path(name)
        with (folder / "subject").open("wb") as subject:
            ship(model, references, subject)
        (folder / "job").write_text(json.dumps(asdict(job)), encoding="utf-8")
        with (folder / "printed").open("w+b") as printed:
            process = subprocess.Popen(  # noqa: S603  # our own interpreter
                [
                    *(sys.executable, "-P", "-m", LAUNCHER),
                    *("--ninstances", str(count), "--ncores-per-instance", str(each)),
                    *("--core-list", ",".join(map(str, allowed))),
                    # The winner was measured with torch's own OpenMP and allocator.
                    *("--disable-iomp", "--use-default-allocator"),
                    # Its own -m takes no module, only a file.
                    *(
                        "--no-python",
                        sys.executable,
                        "-P",
                        "-m",
                        "cpuaccel.tuning.workers.throughput_child",
                        name,
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
                },
                start_new_session=True,
            )
            try:
                _wait_for(folder, READY, count, process, deadline)
                (folder / GO).touch()
                results = _wait_for(folder, RESULT, count, process, deadline)
            except LaunchFailed as error:
                printed.seek(0)
                said = printed.read().decode(errors="replace").strip().splitlines()
                raise LaunchFailed(f"{error}{f': {said[-1]}' if said else ''}") from None
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return Instances(count, each, sum(float(path.read_text()) for path in results))


def launch_line(instances: Instances) -> str:
    """The command that runs a program the way it was measured."""
    return (
        f"python -m {LAUNCHER} --ninstances {instances.count} "
        f"--ncores-per-instance {instances.threads} your_program.py"
    )


def _wait_for(
    folder: Path, prefix: str, count: int, process: "subprocess.Popen[bytes]", deadline: float
) -> list[Path]:
    while True:
        # Renamed into place, so that what is found is whole.
        found = list(folder.glob(f"{prefix}*"))
        if len(found) == count:
            return found
        if process.poll() is not None:
            raise LaunchFailed(f"the launcher ended with code {process.returncode}")
        if time.monotonic() > deadline:
            raise LaunchFailed("the budget ended before they had answered")
        time.sleep(0.05)
