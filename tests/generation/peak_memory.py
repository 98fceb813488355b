"""Run by test_memory.py in a process of its own: the memory of one model's ``generate``.

    python -m tests.generation.peak_memory FOLDER

Prints the growth of the resident memory, and the bytes of the stepper's weights and of the cache.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import cpuaccel
from cpuaccel.generation import meter
from tests.generation.models import decoder, prompt

TOKENS = 40


def peak() -> int:
    """The largest resident memory so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def generate(model: Any) -> Any:
    """Generate as the command line does, and return the optimized model."""
    fast: Any = cpuaccel.optimize(model, ["int8"], keep_original=False)
    fast.generate(**prompt(16), min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False)
    return fast


def main(folder: Path) -> None:
    """Measure one folder."""
    meter.PROBE_BYTES = 2**16  # it is not the model's
    torch.set_num_threads(1)
    generate(decoder("llama", max_position_embeddings=512))  # imports, compiles, computes once
    before = peak()
    fast = generate(transformers.AutoModelForCausalLM.from_pretrained(folder))
    grown = peak() - before
    built = fast.report.generation
    config = fast.config
    cache = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * TOKENS
    sys.stdout.write(
        json.dumps(
            {
                "grown": grown,
                "packed": built.stepper.bytes_per_step,
                "cache": cache,
                "calls": fast.report.calls,
                "unloaded": built.outcome.evidence["unloaded_weights"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
