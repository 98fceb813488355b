"""How fast ``generate`` was: prefills, steps, tokens a second, bandwidth."""

import contextlib
import mmap
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields

import torch

PROBE_BYTES = 2**28
"""Size of the tensor that is read to measure the bandwidth of the memory: more than caches hold."""

_counting = threading.Lock()
"""One lock for all meters: reports with their own locks could not be copied."""


@dataclass
class Meter:
    """What the steppers of one optimized model have done so far.

    Attributes:
        bytes_per_step: bytes of weights that a step reads; 0 if they differ from step to step.
        bandwidth: bytes a second that this machine reads from memory, measured.
        prefills: calls with more than one new token for a row.
        prefill_tokens: tokens in them.
        prefill_seconds: their time.
        steps: calls with one new token for each row.
        step_tokens: tokens in them.
        step_seconds: their time.
        cache_bytes: bytes of keys and values that the steps read.
        generate_seconds: time of whole calls of ``generate``.
    """

    bytes_per_step: int = 0
    bandwidth: float = 0.0
    prefills: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    steps: int = 0
    step_tokens: int = 0
    step_seconds: float = 0.0
    cache_bytes: int = 0
    generate_seconds: float = 0.0

    def record(self, rows: int, tokens: int, seconds: float, cache_bytes: int) -> None:
        """Count one call of a stepper; ``tokens`` are the new ones of each row."""
        with _counting:
            if tokens == 1:
                self.steps += 1
                self.step_tokens += rows
                self.step_seconds += seconds
                self.cache_bytes += cache_bytes
            else:
                self.prefills += 1
                self.prefill_tokens += rows * tokens
                self.prefill_seconds += seconds

    def record_generate(self, seconds: float) -> None:
        """Count one call of ``generate``."""
        with _counting:
            self.generate_seconds += seconds

    def clear(self) -> None:
        """Count from here on."""
        with _counting:
            for counted in fields(self):
                if counted.name not in ("bytes_per_step", "bandwidth"):
                    setattr(self, counted.name, counted.default)

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second in steps, over all rows."""
        return self.step_tokens / self.step_seconds if self.step_seconds else 0.0

    @property
    def bytes_per_token(self) -> float:
        """Bytes of weights and cache that were read for a new token, on average; 0 if unknown."""
        if not self.step_tokens or not self.bytes_per_step:
            return 0.0
        return (self.steps * self.bytes_per_step + self.cache_bytes) / self.step_tokens

    @property
    def share_of_bandwidth(self) -> float:
        """Bytes read a second in steps, relative to what the memory allows."""
        if not self.bandwidth:
            return 0.0
        return self.tokens_per_second * self.bytes_per_token / self.bandwidth

    def __str__(self) -> str:
        lines = []
        if self.prefills:
            rate = self.prefill_tokens / self.prefill_seconds
            lines.append(
                f"{self.prefills} prefills of {self.prefill_tokens} tokens, {rate:.0f} tokens/s"
            )
        if self.steps:
            steps = (
                f"{self.steps} steps of {self.step_tokens} tokens, "
                f"{self.tokens_per_second:.1f} tokens/s"
            )
            if self.bytes_per_step:
                steps += (
                    f", {self.bytes_per_token / 1e6:.3g} MB a token, "
                    f"{self.share_of_bandwidth:.0%} of {self.bandwidth / 1e9:.1f} GB/s"
                )
            lines.append(steps)
        return "; ".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return the figures as JSON-serializable data."""
        return {
            **asdict(self),
            "tokens_per_second": self.tokens_per_second,
            "bytes_per_token": self.bytes_per_token,
            "share_of_bandwidth": self.share_of_bandwidth,
        }


def read_bandwidth() -> float:
    """Measure how many bytes a second torch's threads read from memory; takes 0.2 s.

    The memory is in huge pages where the system has them: in small ones, reading takes longer.
    """
    data = torch.frombuffer(_memory(PROBE_BYTES), dtype=torch.float32).fill_(1)
    best = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - begun)
    return PROBE_BYTES / best


def _memory(size: int) -> mmap.mmap:
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
