"""How long ``cpuaccel.load`` takes, and what each further process of one folder costs in memory.

    python benchmarks/start.py config:qwen2.5-1.5b int8 --generate --dtype bfloat16
    python benchmarks/start.py config:bert-base bettertransformer+onednn,int8,openvino,onnxruntime

Each folder is built and saved in a process of its own. Then 1, 2 and 4 processes load it side by
side and stay until all have called the model once. Times are of the first of them alone, after
Python, torch, Transformers, the engines' Python packages and the model's class are imported, with
the files in the page cache. Memory is what all processes together hold (PSS), without what a
process holds that has imported the same and loaded nothing.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import cpuaccel
from cpuaccel.artifact import reading
from cpuaccel.cli.models.load import load_model

PROCESSES = (1, 2, 4)
TOKENS = 8

ENGINES = {"openvino": "openvino", "openvino_int8": "openvino", "onnxruntime": "onnxruntime"}
"""The packages of engines, by backend."""


def pss(pid: str = "self") -> int:
    """Proportional set size of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("no Pss in smaps_rollup")


def inputs(*, generates: bool, rows: int = 1) -> dict[str, torch.Tensor]:
    """Rows of 128 tokens, or a short prompt."""
    ids = torch.arange(1, 9)[None]
    if not generates:
        ids = torch.randint(1000, 30000, (rows, 128), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def save(arguments: argparse.Namespace, backend: str, folder: str) -> None:
    """Build and save."""
    model = load_model(arguments.model, generates=arguments.generate)
    if arguments.dtype is not None:
        model = model.to(getattr(torch, arguments.dtype))
    example = None if arguments.generate else inputs(generates=False, rows=arguments.rows)
    steps = backend.split("+")
    begun = time.perf_counter()
    fast: Any = cpuaccel.optimize(model, steps, example_inputs=example, strict=True)
    if arguments.generate:
        fast.prepare_generation()
    built = time.perf_counter()
    fast.save(folder)
    print(json.dumps({"build": built - begun, "save": time.perf_counter() - built}))


def load(folder: str, backend: str, *, generates: bool, rows: int) -> None:
    """Load, call once, and stay until standard input ends."""
    for step in backend.split("+"):
        if step in ENGINES:
            importlib.import_module(ENGINES[step])
    described = json.loads((Path(folder) / "artifact.json").read_text(encoding="utf-8"))
    getattr(transformers, described["model"]["name"])
    before = pss()
    begun = time.perf_counter()
    fast: Any = cpuaccel.load(folder)
    loaded = time.perf_counter()
    if generates:
        fast.generate(**inputs(generates=True), max_new_tokens=TOKENS, do_sample=False)
    else:
        fast(**inputs(generates=False, rows=rows))
    called = time.perf_counter()
    times = {"load": loaded - begun, "call": called - loaded, "before": before}
    print(json.dumps(times), flush=True)
    sys.stdin.read()


def measure(arguments: argparse.Namespace, backend: str) -> dict[str, float]:
    """Save once, and load in several processes."""
    options = [arguments.model, backend, *(["--generate"] if arguments.generate else [])]
    options += ["--rows", str(arguments.rows)]
    if arguments.dtype is not None:
        options += ["--dtype", arguments.dtype]
    with tempfile.TemporaryDirectory() as place:
        folder = f"{place}/saved"
        command = [sys.executable, __file__, *options]
        done = subprocess.run(  # noqa: S603
            [*command, "--save", folder], stdout=subprocess.PIPE, check=True, text=True
        )
        row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        for count in PROCESSES:
            processes = [
                subprocess.Popen(  # noqa: S603
                    [*command, "--load", folder],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(count)
            ]
            times = [json.loads(one.stdout.readline()) for one in processes if one.stdout]
            total = sum(pss(str(one.pid)) for one in processes)
            row[f"pss{count}"] = total - sum(one["before"] for one in times)
            if count == 1:
                row |= {"load": times[0]["load"], "call": times[0]["call"]}
            for one in processes:
                one.communicate()
    return row


def main() -> None:
    """Measure each backend, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("backends")
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("--dtype")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--save")
    parser.add_argument("--load")
    arguments = parser.parse_args()
    if arguments.save:
        save(arguments, arguments.backends, arguments.save)
        return
    if arguments.load:
        load(
            arguments.load,
            arguments.backends,
            generates=arguments.generate,
            rows=arguments.rows,
        )
        return
    print("| backend | build | save | load | first call | memory of 1, 2, 4 processes |")
    print("|---|---|---|---|---|---|")
    for backend in arguments.backends.split(","):
        row = measure(arguments, backend)
        times = " | ".join(f"{row[name]:.2f} s" for name in ("build", "save", "load", "call"))
        memory = ", ".join(f"{row[f'pss{count}'] / 2**20:,.0f}" for count in PROCESSES)
        print(f"| `{backend}` | {times} | {memory} MiB |", flush=True)


if __name__ == "__main__":
    assert reading  # imported before times are taken
    main()
