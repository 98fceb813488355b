"""Run command lines of the examples, each in a process forked from this one.

This process imports the libraries once, which takes longer than most tests. It reads requests as
lines from stdin and prints the exit code of each.
"""

import importlib
import importlib.util
import json
import os
import runpy
import sys

import torch

IPEX = "intel_extension_for_pytorch"  # accelerate imports it if installed

for library in (
    "datasets",
    "pandas",
    "torchmetrics.functional.text",
    "cpuaccel.integrations.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.data.data_collator",
    *([IPEX] if importlib.util.find_spec(IPEX) else []),
):
    importlib.import_module(library)

sys.stdout.write("ready\n")
sys.stdout.flush()
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in enumerate(("stdout", "stderr"), 1):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT), descriptor)
        os.chdir(request["folder"])
        os.environ["COLUMNS"] = "200"
        torch.set_num_threads(1)
        sys.argv = [request["script"], *request["arguments"]]
        ended = 0
        try:
            runpy.run_path(request["script"], run_name="__main__")
        except SystemExit as end:
            ended = end.code if isinstance(end.code, int) else 1
        sys.stdout.flush()
        os._exit(ended)  # skip the shutdown of the libraries, which takes seconds
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout.write(f"{code}\n")
    sys.stdout.flush()
