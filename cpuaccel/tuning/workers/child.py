"""A worker process: ``python -m cpuaccel.tuning.workers.child``, with a socket as standard input.

It receives its file descriptors through the socket, builds the candidate of its job and then times
it on command. Output that a plugin prints can't get between the messages. When the search's
process ends, for whatever reason, so does this one.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
from typing import IO


def main() -> None:
    """Build one candidate, and time it until the search's process ends this one."""
    channel, subject_fd, outputs_fd, lifeline = _receive_descriptors()
    _die_with_parent(lifeline)
    _prefer_for_oom_kill()
    faulthandler.enable()
    with (
        channel.makefile("r", encoding="utf-8") as commands,
        channel.makefile("w", encoding="utf-8") as replies,
        # Opened again, since processes that share a descriptor share its position.
        open(f"/proc/self/fd/{subject_fd}", "rb") as subject,
        open(f"/proc/self/fd/{outputs_fd}", "wb") as outputs,
    ):
        _work(commands, replies, subject, outputs)


def _receive_descriptors() -> tuple[socket.socket, int, int, int]:
    with socket.socket(fileno=os.dup(0)) as handover:
        _, descriptors, _, _ = socket.recv_fds(handover, 1, 4, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise SystemExit("the search ended")
    with open(os.devnull, "rb") as empty:
        os.dup2(empty.fileno(), 0)
    channel, subject, outputs, lifeline = descriptors
    return socket.socket(fileno=channel), subject, outputs, lifeline


def _work(commands: IO[str], replies: IO[str], subject: IO[bytes], outputs: IO[bytes]) -> None:
    import torch

    from cpuaccel.building.reference import Reference
    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.errors import CpuaccelError
    from cpuaccel.model.output import tensors
    from cpuaccel.report import CAST_STEP
    from cpuaccel.tuning.candidate import Candidate
    from cpuaccel.tuning.decisions.decision import Decision, assemble
    from cpuaccel.tuning.workers import messages
    from cpuaccel.tuning.workers.pickling import load_model
    from cpuaccel.tuning.workers.proof import ProofFailed
    from cpuaccel.tuning.workers.timing import measure, on_each, passes
    from cpuaccel.tuning.workers.use import Use

    def send(message: object) -> None:
        replies.write(messages.encode(message))
        replies.flush()

    logging.getLogger("cpuaccel").setLevel(logging.ERROR)  # the reply has the reasons
    job = messages.decode(commands.readline(), messages.JOB)
    torch.set_num_threads(job.threads)
    model, probes = load_model(subject)
    batches = [probe.inputs for probe in probes]
    use = Use(job.generate)
    eager = on_each(use.original(Reference(model, inplace=False)), batches)
    torch.set_grad_enabled(False)

    candidate = Candidate(job.steps, job.precision)
    try:
        optimized = assemble(
            model,
            Decision({candidate: candidate.pipeline}, None, job.threads),
            BuildSettings(tolerance=job.tolerance, measure_speed=False),
        )
        use.prepare(optimized, batches[0])
        proven = use.prove(optimized, probes)
    except ProofFailed as error:
        send(messages.Refused(error.reason, error.differences))
        return
    except CpuaccelError as error:
        send(messages.Refused(str(error)))
        return
    evidence = [o for o in proven.outcomes if o.step != CAST_STEP or not job.steps]
    if job.outputs:  # before the reply, on which the search reads them
        torch.save([tensors(output) for output in proven.outputs], outputs)
        outputs.flush()
    send(messages.Built(proven.build_seconds, tuple(proven.differences), tuple(map(str, evidence))))
    del proven, probes

    fast = on_each(use.optimized(optimized), batches)
    for line in commands:
        command = messages.decode(line, messages.TIME)
        if command.with_eager:
            rounds = measure(eager, fast, job.weights, seconds=command.seconds, to_beat=job.to_beat)
            send(rounds)
        else:
            send(passes(fast, seconds=command.seconds))


def _die_with_parent(lifeline: int) -> None:
    """Fork a watcher that kills this process group when the search's process has ended."""
    # Not a thread: an engine may hold the interpreter's lock. Not the kernel's signal on a parent's
    # death: it reaches only this process, not its children.
    group = os.getpid()
    if os.fork():
        os.close(lifeline)
        return
    os.setsid()  # not stopped together with the group
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, os.sysconf("SC_OPEN_MAX"))
    os.read(lifeline, 1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    os._exit(0)


def _prefer_for_oom_kill() -> None:
    """Make the kernel's OOM killer pick this process instead of the user's."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


if __name__ == "__main__":
    main()
