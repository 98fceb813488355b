"""The process that one candidate lives in: ``python -m cpuaccel.tuning.workers.child FD...``.

It reads its job and then commands from one pipe and answers on another; nothing that a plugin
prints can get in between. When the search's process ends, however it ends, so does this one.
"""

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import IO


def main(arguments: list[str]) -> None:
    """Try one candidate, and go on timing it for as long as it is told to.

    Args:
        arguments: file descriptors: where commands come from, where answers go to, where the
            model is, where outputs go to, and the pipe that closes when the search's process ends.
    """
    commands_fd, answers_fd, subject_fd, outputs_fd, lifeline_fd = map(int, arguments)
    _die_with_parent(lifeline_fd)
    _be_killed_first()
    faulthandler.enable()
    with (
        os.fdopen(commands_fd, "r", encoding="utf-8") as commands,
        os.fdopen(answers_fd, "w", encoding="utf-8") as answers,
        os.fdopen(subject_fd, "rb", closefd=False) as subject,
        os.fdopen(outputs_fd, "wb") as outputs,
    ):
        _work(commands, answers, subject, outputs)


def _work(commands: IO[str], answers: IO[str], subject: IO[bytes], outputs: IO[bytes]) -> None:
    import torch

    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.errors import CpuaccelError
    from cpuaccel.model.output import tensors
    from cpuaccel.report import CAST_STEP, Outcome
    from cpuaccel.tuning.candidate import Candidate
    from cpuaccel.tuning.decisions.decision import Decision, assemble
    from cpuaccel.tuning.workers.messages import Built, Measured, Refused, Turn, job_of, tell
    from cpuaccel.tuning.workers.pickling import receive
    from cpuaccel.tuning.workers.proof import Disproved, prove
    from cpuaccel.tuning.workers.timing import measure, passes

    logging.getLogger("cpuaccel").setLevel(logging.ERROR)  # the row tells it all
    job = job_of(commands.readline())
    torch.set_num_threads(job.threads)
    model, probes = receive(subject)
    batches = [probe.inputs for probe in probes]

    from cpuaccel.model.copying import shared_copy
    from cpuaccel.model.signature import Binder, Inputs

    binder, eager = Binder(model), shared_copy(model)
    torch.set_grad_enabled(False)

    def call_eager(batch: Inputs) -> object:
        return binder.call(eager, batch)

    candidate = Candidate(job.steps, job.precision)
    try:
        optimized = assemble(
            model,
            Decision({candidate: candidate.pipeline}, None, job.threads),
            BuildSettings(tolerance=job.tolerance, measure_speed=False),
        )
        optimized.prepare(batches[0])
        found, differences = prove(optimized, probes)
    except Disproved as error:
        tell(Refused(error.reason, error.differences), answers)
        return
    except CpuaccelError as error:
        tell(Refused(str(error)), answers)
        return
    variants = optimized.report.variants

    def told(outcome: Outcome) -> bool:
        return outcome.step != CAST_STEP or not job.steps

    if job.outputs:  # before it is told: the search reads them when it hears of it
        torch.save([tensors(output) for output in found], outputs)
        outputs.flush()
    tell(
        Built(
            sum(variant.seconds for variant in variants),
            tuple(differences),
            tuple(str(o) for o in optimized.report.outcomes if told(o)),
        ),
        answers,
    )
    del found, probes

    def calling(call: Callable[..., object]) -> list[Callable[[], object]]:
        return [lambda batch=batch: call(batch) for batch in batches]  # type: ignore[misc]

    fast = calling(lambda batch: optimized(**batch))
    command = json.loads(commands.readline() or "{}")
    if "measure" in command:
        rounds = measure(
            calling(call_eager),
            fast,
            job.weights,
            seconds=command["measure"],
            to_beat=job.to_beat,
        )
        tell(Measured(tuple(rounds)), answers)
    for line in commands:
        times = passes(fast, seconds=json.loads(line)["turn"])
        tell(Turn(tuple(map(tuple, times))), answers)


def _die_with_parent(lifeline: int) -> None:
    """Have a small process end this one, and all that it starts, once the search's is gone.

    A thread of this process could not, while an engine holds the interpreter's lock; and the
    kernel's signal on a parent's death would reach this process alone.
    """
    group = os.getpid()
    if os.fork():
        os.close(lifeline)
        return
    os.setsid()  # so that it is not stopped where the group is
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, os.sysconf("SC_OPEN_MAX"))
    os.read(lifeline, 1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    os._exit(0)


def _be_killed_first() -> None:
    """Where memory runs out, the kernel shall end this process and not the user's."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


if __name__ == "__main__":
    main(sys.argv[1:])
