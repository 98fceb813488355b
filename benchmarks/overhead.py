"""Measure what a call through cpuaccel adds to a call of the bare compiled callable.

Both are called in turn on the same inputs, so that changes of the machine's speed affect both.
Prints the median difference over pairs, in microseconds: for calls one right after the other, with
hot caches, and for calls after a rest, when other programs have used the caches.
"""

import statistics

import torch
from transformers import BertConfig, BertForQuestionAnswering

import cpuaccel
from cpuaccel.timing import interleave

ROUNDS = {0.0: 5000, 0.01: 1000}
"""Pairs, by the seconds of rest before each call."""


def main() -> None:
    """Measure with a model so small that the overhead is visible."""
    torch.manual_seed(0)
    model = BertForQuestionAnswering(
        BertConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            vocab_size=100,
        )
    )
    tokens = torch.randint(5, 100, (1, 16))
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch, strict=True)
    script = fast.variants[0].model
    for rest, rounds in ROUNDS.items():
        with torch.no_grad():
            times = interleave(
                {"bare": lambda: script(**batch), "cpuaccel": lambda: fast(**batch)},
                rounds=rounds,
                warmup=200,
                rest=rest,
            )
        extra = [(b - a) * 1e6 for a, b in zip(times["bare"], times["cpuaccel"])]
        low, median, high = statistics.quantiles(extra, n=4)
        print(f"after a rest of {rest * 1000:.0f} ms, {rounds} pairs:")
        print(f"  bare script    {statistics.median(times['bare']) * 1e6:8.1f} us")
        print(f"  cpuaccel       {statistics.median(times['cpuaccel']) * 1e6:8.1f} us")
        print(f"  overhead       {median:8.1f} us [{low:.1f}, {high:.1f}]", flush=True)


if __name__ == "__main__":
    main()
