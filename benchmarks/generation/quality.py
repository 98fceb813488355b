"""Compare what backends predict with what the original model predicts, on real text.

    python benchmarks/generation/quality.py MODEL_FOLDER TEXT_FILE [--backends onednn int8]
        [--int4-names 'model.layers.*'] [--dtype bfloat16] [--tokens 4096] [--window 512]
        [--step 16] [--tolerance 1]

The text is cut into windows that don't depend on each other. The reference is the model in float32,
computed by Transformers. Each backend computes the logits twice: for a whole window at once
("prefill", torch's linears), and for a few tokens at a time over a cache ("steps", the kernels for
few rows). With ``--dtype`` they get the model cast to it, also where ``optimize(dtype=...)`` would
keep float32 because the processor has no fast bfloat16. The backend ``eager`` is the cast model
itself: the loss of precision alone. ``--int4-names`` adds ``int8`` with these linears in 4 bits.

A backend that fails its own proof can't be measured. ``--tolerance 1`` makes it pass.

Prints a line of a Markdown table for each backend and way:

- KL: mean Kullback-Leibler divergence of the next token's distribution from the reference, in nats,
  with the standard error of the mean over windows, and the 99th percentile over tokens.
- top-1: share of tokens whose most probable next token is the reference's.
- perplexity of the text, and its ratio to the reference's.

Exits with 1 if a backend exceeds one of the limits for weights in 8 or 4 bits.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.cache_utils import DynamicCache

import cpuaccel
from cpuaccel.generation.cache import let_grow

EAGER, INT4 = "eager", "int8 with linears in 4 bits"


@dataclass(frozen=True)
class Limits:
    """What is accepted.

    Attributes:
        divergence: largest mean divergence, in nats.
        agreement: smallest share of equal top-1 tokens.
        perplexity: largest perplexity, relative to the reference's.
    """

    divergence: float
    agreement: float
    perplexity: float


LIMITS = {INT4: Limits(float("inf"), 0.92, 1.08)}
LIMITS_8_BITS = Limits(0.01, 0.98, 1.01)

Forward = Callable[..., object]


class Tally:
    """Sums over the tokens of all windows for one backend and one way to compute.

    Attributes:
        name: of the row in the table.
        backend: whose logits are compared.
        by_steps: compute a few tokens at a time over a cache, not the window at once.
    """

    def __init__(self, backend: str, by_steps: bool) -> None:
        self.name = f"{backend}, {'steps' if by_steps else 'prefill'}"
        self.backend = backend
        self.by_steps = by_steps
        self._windows: list[torch.Tensor] = []
        self._agreed: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []
        self._expected_losses: list[torch.Tensor] = []

    def add(self, logits: torch.Tensor, expected: torch.Tensor, targets: torch.Tensor) -> None:
        """Compare the logits of a window.

        Args:
            logits: the backend's, shape (tokens, vocabulary).
            expected: the reference's, likewise.
            targets: the tokens that follow, shape (tokens,).
        """
        found, reference = logits.float().log_softmax(-1), expected.float().log_softmax(-1)
        self._windows.append((reference.exp() * (reference - found)).sum(-1))
        self._agreed.append(logits.argmax(-1) == expected.argmax(-1))
        self._losses.append(-found.gather(1, targets[:, None])[:, 0])
        self._expected_losses.append(-reference.gather(1, targets[:, None])[:, 0])

    @property
    def divergence(self) -> float:
        """Mean over tokens, in nats."""
        return torch.cat(self._windows).double().mean().item()

    @property
    def agreement(self) -> float:
        """Share of equal top-1 tokens."""
        return torch.cat(self._agreed).double().mean().item()

    @property
    def perplexity(self) -> float:
        """Of the backend."""
        return torch.cat(self._losses).double().mean().exp().item()

    @property
    def expected_perplexity(self) -> float:
        """Of the reference."""
        return torch.cat(self._expected_losses).double().mean().exp().item()

    @property
    def ratio(self) -> float:
        """Perplexity relative to the reference's."""
        return self.perplexity / self.expected_perplexity

    def exceeded(self) -> list[str]:
        """The limits that are exceeded."""
        most = LIMITS.get(self.backend, LIMITS_8_BITS)
        limits = {
            f"KL > {most.divergence}": not self.divergence <= most.divergence,
            f"top-1 < {most.agreement:.0%}": not self.agreement >= most.agreement,
            f"perplexity > {most.perplexity} times": not self.ratio <= most.perplexity,
        }
        return [limit for limit, is_exceeded in limits.items() if is_exceeded]

    def __str__(self) -> str:
        means = torch.stack([window.double().mean() for window in self._windows])
        error = means.std().item() / len(means) ** 0.5 if len(means) > 1 else float("nan")
        high = torch.cat(self._windows).quantile(0.99).item()
        return (
            f"| {self.name} | {self.divergence:.2g} ± {error:.1g} | {high:.2g} "
            f"| {100 * self.agreement:.2f} % "
            f"| {self.perplexity:.4f} / {self.expected_perplexity:.4f} = {self.ratio:.5f} "
            f"| {', '.join(self.exceeded()) or 'within limits'} |"
        )


def main() -> None:
    """Compare all backends, window by window."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER")
    parser.add_argument("text", type=Path, metavar="TEXT_FILE")
    parser.add_argument("--backends", nargs="+", default=["int8"], metavar="BACKEND")
    parser.add_argument("--int4-names", nargs="+", metavar="PATTERN", help="linears in 4 bits")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tokens", type=int, default=4096, help="of the text, in all")
    parser.add_argument("--window", type=int, default=512, help="tokens of a window")
    parser.add_argument("--step", type=int, default=16, help="tokens of a step")
    parser.add_argument("--tolerance", type=float, help="of optimize")
    arguments = parser.parse_args()
    logging.getLogger("cpuaccel").setLevel(logging.ERROR)

    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    windows = cut(arguments.model, arguments.text, arguments.tokens, arguments.window)
    dtype, tolerance = arguments.dtype, arguments.tolerance
    steps = {name: cpuaccel.Step(name) for name in arguments.backends}
    if arguments.int4_names:
        steps[INT4] = cpuaccel.Step("int8", int4_names=arguments.int4_names)
    forwards = {name: forward_of(model, step, dtype, tolerance) for name, step in steps.items()}
    tallies = [Tally(name, by_steps) for name in forwards for by_steps in (False, True)]
    with torch.no_grad():
        for window in windows:
            expected = model(input_ids=window, use_cache=False).logits[0, :-1]
            for tally in tallies:
                size = arguments.step if tally.by_steps else window.shape[1]
                logits = compute(model, forwards[tally.backend], window, size)
                tally.add(logits[:-1], expected, window[0, 1:])
    print(f"{windows.numel()} tokens in windows of {windows.shape[-1]}, steps of {arguments.step}")
    print("\n| backend | KL in nats | 99th percentile | top-1 | perplexity | limits |")
    print("|---|---|---|---|---|---|")
    print(*tallies, sep="\n")
    sys.exit(any(tally.exceeded() for tally in tallies))


def cut(model: Path, text: Path, tokens: int, size: int) -> torch.Tensor:
    """Tokenize a text and cut it into windows; returns shape (windows, 1, size).

    Each window begins with the beginning-of-sequence token if the tokenizer adds one.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
    first = tokenizer.bos_token_id
    prefix = [first] if first is not None and first in tokenizer("")["input_ids"][:1] else []
    each = size - len(prefix)
    count = min(len(ids), tokens) // each if tokens >= size else 0
    if count == 0:
        sys.exit(f"{text} has {len(ids)} tokens and --tokens is {tokens}: fewer than one window")
    return torch.tensor([[prefix + ids[at * each : (at + 1) * each]] for at in range(count)])


def forward_of(
    model: PreTrainedModel, step: cpuaccel.Step, dtype: str, tolerance: float | None
) -> Forward:
    """Return what ``generate`` calls with a backend: its stepper's ``forward``."""
    cast = cpuaccel.shared_copy(model, getattr(torch, dtype))
    if step.backend == EAGER:
        return cast
    fast = cpuaccel.optimize(cast, [step], tolerance=tolerance)
    fast.prepare_generation()
    generation = fast.report.generation
    if generation is None or generation.stepper is None or generation.closeness is None:
        sys.exit(f"{step.backend} does not generate:\n{fast.report}")
    closeness = generation.closeness
    print(
        f"{generation.outcome}; its proof: {closeness}, divergence {closeness.divergence:.2g} nat, "
        f"top-1 {closeness.same_best:.1%}",
        flush=True,
    )
    return generation.stepper.forward


def compute(model: PreTrainedModel, forward: Forward, ids: torch.Tensor, size: int) -> torch.Tensor:
    """Compute the logits for ids of shape (1, tokens), in calls of ``size`` tokens over a cache.

    Returns shape (tokens, vocabulary).
    """
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    let_grow(cache)
    parts = [
        forward(input_ids=part, past_key_values=cache, use_cache=True).logits[0].float()
        for part in ids.split(size, dim=1)
    ]
    return torch.cat(parts)


if __name__ == "__main__":
    main()
