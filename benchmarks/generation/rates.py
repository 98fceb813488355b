"""Times to the first token and after it, of engines that generate in turn."""

from typing import Any

import numpy as np
import torch

import cpuaccel
from cpuaccel.cli.bench.generate import Clock
from cpuaccel.timing import Ratio


class Rates:
    """The times of each engine; its first run is a warm-up, and not shown."""

    def __init__(self, tokens: int) -> None:
        """Expect this number of new tokens in each run."""
        self._tokens = tokens
        self._first: dict[str, list[float]] = {}
        self._rest: dict[str, list[float]] = {}

    def add(self, name: str, first: float, rest: float) -> None:
        """Add a run: seconds to the first token, and from there to the last one."""
        self._first.setdefault(name, []).append(first)
        self._rest.setdefault(name, []).append(rest)

    def generate(self, name: str, model: Any, prompt: torch.Tensor) -> None:
        """Let a model generate greedily for a prompt, shape (1, tokens), and add the run."""
        clock = Clock()
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=self._tokens,
            max_new_tokens=self._tokens,
            streamer=clock,
        )
        self.add(name, clock.first_token, clock.rest)

    def print(self, words: int, peer: str) -> None:
        """Print medians, and the paired ratios of all others over a peer."""
        first, rest = (
            {name: times[1:] for name, times in each.items()} for each in (self._first, self._rest)
        )
        threads = torch.get_num_threads()
        print(f"{cpuaccel.host().processor}, {threads} threads, prompt of {words} tokens")
        for name in first:
            rates = [(self._tokens - 1) / seconds for seconds in rest[name]]
            print(
                f"{name:14} first token {1000 * float(np.median(first[name])):6.0f} ms, "
                f"{float(np.median(rates)):6.1f} tokens/s"
            )
        for name in [name for name in first if name != peer]:
            for what, times in (("first token", first), ("tokens/s", rest)):
                print(f"{name} over {peer}, {what}: {Ratio.from_times(times[peer], times[name])}")
