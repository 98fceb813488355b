"""Greedy chats of SmolLM2 in float32, by onednn with and without a draft, and by eager.

    python benchmarks/generation/draft.py --rounds 3

All take turns in the same prompts, 64 new tokens each. Prints medians, paired ratios, and whether
the tokens are eager's.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

import cpuaccel
from cpuaccel import Step
from cpuaccel.cli.generate.load import load
from cpuaccel.timing import Ratio, interleave

PROMPTS = (
    "Why is the sky blue?",
    "Write a short story about a fox.",
    "List the planets of the solar system.",
    "What is the capital of France, and what is it known for?",
)
STEPS = {
    "onednn": Step("onednn"),
    "draft of 8 bits": Step("onednn", draft_bits=8),
    "draft of 4 bits": Step("onednn", draft_bits=4),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds: int = parser.parse_args().rounds
    model, tokenizer = load("smollm2", "float32")
    inputs = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        for text in PROMPTS
    ]
    models: dict[str, Any] = {"eager": model}
    models |= {name: cpuaccel.optimize(model, [step]) for name, step in STEPS.items()}
    found: dict[str, list[list[int]]] = {}

    def generating(name: str) -> Callable[[], None]:
        def run() -> None:
            found[name] = [
                models[name].generate(**one, max_new_tokens=64, do_sample=False)[0].tolist()
                for one in inputs
            ]

        return run

    with torch.inference_mode():
        runs = {name: generating(name) for name in models}
        times = interleave(runs, rounds=rounds, warmup=1)
    print(f"{cpuaccel.host().processor}, {torch.get_num_threads()} threads")
    for name, taken in times.items():
        over_eager = Ratio.from_times(times["eager"], taken)
        over_onednn = Ratio.from_times(times["onednn"], taken)
        same = "eager's tokens" if found[name] == found["eager"] else "OTHER TOKENS"
        print(
            f"{name:16} {statistics.median(taken):6.2f} s, {over_eager} over eager, "
            f"{over_onednn} over onednn, {same}"
        )
    for name in STEPS:
        print(f"{name}: {str(models[name].report.generation).splitlines()[-1]}")


if __name__ == "__main__":
    main()
