"""The tokens of one ``generate`` on their way to the terminal, and their speed."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

    from cpuaccel.generation.build import Generation
    from cpuaccel.report import Report

NOT_ACCELERATED = "Pass --backends onednn or int8, and use transformers>=5"


class Stream:
    """The streamer of one ``generate``: counts, times and prints its tokens.

    Attributes:
        tokens: ids of the tokens so far.
    """

    def __init__(self, printer: Any, on_start: Callable[[], None], *, encodes: bool) -> None:
        """Start the clock.

        Args:
            printer: Transformers' streamer that prints the text; None prints nothing.
            on_start: called before the first forward pass, after everything was built.
            encodes: whether the model has run an encoder by then.
        """
        self.tokens: list[int] = []
        self._printer = printer
        self._on_start = on_start
        self._encodes = encodes
        self._has_prompt = False
        self._begun = self._first = self._latest = time.perf_counter()

    def put(self, value: "torch.Tensor") -> None:
        """Take the prompt, then the token of each step."""
        now = time.perf_counter()
        if self._has_prompt:
            if not self.tokens:
                self._first = now
            self._latest = now
            self.tokens += value.flatten().tolist()
        else:
            self._has_prompt = True
            self._on_start()
            if not self._encodes:
                self._begun = now
        if self._printer is not None:
            self._printer.put(value)

    def end(self) -> None:
        """Print the rest of the text."""
        if self._printer is not None:
            self._printer.end()

    @property
    def first_token_seconds(self) -> float | None:
        """Seconds to the first token, without those to load and build; None without a token."""
        return self._first - self._begun if self.tokens else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens a second after the first token; None with less than two tokens."""
        seconds = self._latest - self._first
        return (len(self.tokens) - 1) / seconds if seconds > 0 else None


def summary(stream: Stream, report: "Report") -> str:
    """Describe the speed of one ``generate``, and which model served it."""
    count = len(stream.tokens)
    parts = [f"{count} token" if count == 1 else f"{count} tokens"]
    rate = stream.tokens_per_second
    if rate is not None:
        parts.append(f"{rate:.1f} tokens/s")
    if stream.first_token_seconds is not None:
        parts.append(f"first token after {stream.first_token_seconds:.2f} s")

    generation = cast("Generation | None", report.generation)
    reasons = "; ".join(report.fallbacks.values())
    if generation is None or generation.stepper is None:
        remedy = NOT_ACCELERATED if generation is None else generation.outcome.remedy
        served = f"original: {reasons}{f'. {remedy}' if remedy else ''}" if reasons else "original"
    elif reasons:
        total = sum(report.calls[key] for key in report.fallbacks)
        calls = "1 call" if total == 1 else f"{total} calls"
        served = f"{report.pipeline}; the original served {calls}: {reasons}"
    else:
        served = report.pipeline
        meter = generation.meter
        if rate is not None and meter.bandwidth:
            # By this rate, which includes the work between the steps, unlike the meter's.
            share = rate * meter.bytes_per_token / meter.bandwidth
            parts.append(f"{meter.bytes_per_token / 1e6:.0f} MB a token")
            parts.append(f"{share:.0%} of {meter.bandwidth / 1e9:.1f} GB/s")
    return " ".join(f"{', '.join(parts)} ({served})".split())


def make_printer(tokenizer: Any) -> Any:
    """Make the streamer that prints words on stdout as soon as they are complete."""
    from cpuaccel.cli.models.load import import_transformers

    streamer = import_transformers().TextStreamer
    return streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
