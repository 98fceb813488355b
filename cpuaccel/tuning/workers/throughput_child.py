"""One of several processes side by side: ``python -m <this module> FOLDER``.

Started by torch's launcher, which gives it its cores and its threads.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    """Build the candidate, wait for the others, answer calls for a while, and write rows a second.

    Args:
        folder: holds the model and the job, and takes what is found.
    """
    import psutil
    import torch

    from cpuaccel.building.settings import BuildSettings
    from cpuaccel.tuning.candidate import Candidate
    from cpuaccel.tuning.decisions.decision import Decision, assemble
    from cpuaccel.tuning.workers.pickling import receive
    from cpuaccel.tuning.workers.throughput import GO, READY, RESULT, InstanceJob
    from cpuaccel.tuning.workload import Workload

    logging.getLogger("cpuaccel").setLevel(logging.ERROR)
    job = InstanceJob(**json.loads((folder / "job").read_text(encoding="utf-8")))
    with (folder / "subject").open("rb") as subject:
        model, probes = receive(subject)
    batches = [probe.inputs for probe in probes]
    workload = Workload(tuple(batches), tuple(job.weights))
    candidate = Candidate(tuple(job.steps), job.precision)
    optimized = assemble(
        model,
        Decision({candidate: candidate.pipeline}, None, torch.get_num_threads()),
        BuildSettings(tolerance=job.tolerance, measure_speed=False),
    )
    with torch.no_grad():
        for batch in batches * 2:
            optimized(**batch)
        (folder / f"{READY}{os.getpid()}").touch()
        while not (folder / GO).exists():
            if not psutil.pid_exists(job.search):
                return
            time.sleep(0.002)
        seconds = [0.0] * len(batches)
        calls = 0
        begun = time.perf_counter()
        while not calls or time.perf_counter() - begun < job.seconds:
            for number, batch in enumerate(batches):
                start = time.perf_counter()
                optimized(**batch)
                seconds[number] += time.perf_counter() - start
            calls += 1
    mean = sum(w * s / calls for w, s in zip(workload.weights, seconds))
    written = folder / f".{os.getpid()}"
    written.write_text(repr(workload.mean_rows / mean), encoding="utf-8")
    written.rename(folder / f"{RESULT}{os.getpid()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
