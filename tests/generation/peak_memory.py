"""Run by test_peak_memory.py in a process of its own: the memory of one model's ``generate``.

    python -m tests.generation.peak_memory FOLDER [in-memory]

Prints by how many bytes the resident memory has grown, and the bytes of the stepper's weights and
of the cache. With ``in-memory`` the model is made from the folder's config, in float32.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import cpuaccel
from cpuaccel.generation import meter
from tests.generation.models import decoder, prompt

TOKENS = 40


def resident(name: str) -> int:
    """Resident memory in bytes: now (VmRSS), or at most so far (VmHWM).

    ``getrusage`` would begin with that of the process which started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(found)


def generate(model: Any) -> Any:
    """Generate as the command line does, and return the optimized model."""
    fast: Any = cpuaccel.optimize(model, ["int8"], keep_original=False)
    fast.generate(**prompt(16), min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False)
    return fast


def load(folder: Path, in_memory: bool) -> Any:
    auto: Any = transformers.AutoModelForCausalLM
    if not in_memory:
        return auto.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    return auto.from_config(config, dtype=torch.float32).eval()


def main(folder: Path, in_memory: bool) -> None:
    """Measure one folder."""
    if in_memory:
        meter.PROBE_BYTES = 2**16  # it is read beside the model
    torch.set_num_threads(1)
    generate(decoder("llama", max_position_embeddings=512))  # imports, compiles, computes once
    before = resident("VmRSS")
    model = load(folder, in_memory)
    loaded = resident("VmRSS") - before
    fast = generate(model)
    built = fast.report.generation
    config = fast.config
    cache = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * TOKENS
    sys.stdout.write(
        json.dumps(
            {
                "loaded": loaded,
                "peak": resident("VmHWM") - before,
                "after": resident("VmRSS") - before,
                "packed": built.stepper.bytes_per_step,
                "cache": cache,
                "calls": fast.report.calls,
                "unloaded": built.outcome.evidence["unloaded_weights"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), in_memory="in-memory" in sys.argv)
