"""Running the examples: each a process of its own, but not each importing everything anew."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

EXAMPLES = Path(__file__).parents[2] / "examples"

# A server that has imported what takes seconds forks a process for each run.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "cpuaccel.integrations.trainer",
        "datasets",
        "pandas",
        "tests.examples.running",
        "torchmetrics",
        "transformers.models.auto.modeling_auto",
        "transformers.models.bert.modeling_bert",
    ]
)

TIMEOUT = 120


def run_example(script: str, *options: object) -> subprocess.CompletedProcess[str]:
    """Run an example to its end.

    Args:
        script: its path in ``examples``.
        options: what follows it on the command line.
    """
    arguments = [str(EXAMPLES / script), *map(str, options)]
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        process = SERVER.Process(target=_run, args=(arguments, files))
        # Read once, by the server; without it, every name that is no folder is asked for in vain.
        with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1"):
            process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        stdout, stderr = (Path(file).read_text(encoding="utf-8") for file in files)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _run(arguments: list[str], files: list[str]) -> None:
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    import torch

    torch.set_num_threads(1)  # models this small only lose time to threads
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
