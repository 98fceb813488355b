"""How close a stepper's logits are to the original's, and how close they must be."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cpuaccel.errors import BackendError
from cpuaccel.report import Difference

LARGEST_DIVERGENCE_BF16 = 0.01
LARGEST_DIVERGENCE_COARSE = 0.05
LARGEST_DIVERGENCE_4_BITS = 1.0
"""Largest mean divergence of the next token's distribution that is accepted in bfloat16, of a
backend with a tolerance of its own and in 4 bits, in nats (Kullback-Leibler). Wrong ones diverge by
far more; how good few bits are is measured on text."""

LARGEST_DIFFERENCE = 0.25
LARGEST_DIFFERENCE_4_BITS = 0.75
"""Largest difference that is accepted of them besides, relative to the largest logit: a model with
nearly equal logits hardly diverges, whatever is wrong."""

TOKENS_AT_ONCE = 4
"""Tokens whose distributions are compared at once."""

REMEDY = "Leave the step out, or report this to the plugin's author"


@dataclass(frozen=True)
class Limits:
    """How far logits may be from the original's.

    Attributes:
        tolerance: largest accepted difference, relative to the largest logit.
        divergence: limit the mean divergence of the distributions by this instead.
        largest_difference: the limit of the differences then.
    """

    tolerance: float
    divergence: float | None = None
    largest_difference: float = LARGEST_DIFFERENCE


@dataclass(frozen=True)
class Compared:
    """The logits of one probe, of real tokens only; shape (tokens, vocabulary)."""

    probe: str
    logits: torch.Tensor
    expected: torch.Tensor


@dataclass(frozen=True)
class Closeness:
    """How close a stepper's logits are to the original's.

    Attributes:
        tolerance: largest accepted difference, relative to the largest logit; 0 where the
            divergence is limited instead.
        largest_divergence: largest accepted mean divergence.
        differences: one for each probe.
        divergence: mean divergence of the next token's distribution, in nats.
        same_best: share of tokens whose best next token is the same.
    """

    tolerance: float
    largest_divergence: float
    differences: tuple[Difference, ...]
    divergence: float
    same_best: float

    def __str__(self) -> str:
        worst = max(self.differences, key=lambda d: d.relative)
        limit = (
            f"tolerance {self.tolerance:g}"
            if self.tolerance
            else f"divergence {self.divergence:.2g} of at most {self.largest_divergence} nat"
        )
        return (
            f"largest difference {worst.relative:.2g} of the logits' magnitude "
            f"({limit}; {len(self.differences)} probes)"
        )


def closeness(compared: Sequence[Compared], limits: Limits) -> Closeness:
    """Compare logits.

    Raises:
        BackendError: they differ by more than the limits.
    """
    tolerance, divergence = limits.tolerance, limits.divergence
    differences = tuple(_difference(one) for one in compared)
    tokens_compared = sum(len(one.logits) for one in compared)
    found = Closeness(
        tolerance if divergence is None else 0.0,
        divergence or 0.0,
        differences,
        sum(map(_divergence, compared)) / tokens_compared,
        sum(map(_same_best, compared)) / tokens_compared,
    )
    if divergence is not None and not found.divergence <= divergence:
        raise BackendError(
            f"the distributions of the next token differ by {found.divergence:.3g} nat on "
            f"average, more than {divergence}",
            REMEDY,
        )
    tolerance = tolerance if divergence is None else limits.largest_difference
    for difference in differences:
        if not difference.relative <= tolerance:
            raise BackendError(
                f"with {difference.probe} {difference}, tolerance {tolerance:g}", REMEDY
            )
    return found


def _difference(one: Compared) -> Difference:
    absolute = (one.logits.float() - one.expected.float()).abs().max().item()
    relative = absolute / max(one.expected.float().abs().max().item(), 1e-30)
    return Difference(one.probe, "logits", absolute, relative)


def _divergence(one: Compared) -> float:
    """The sum over the tokens, of which few are computed at once: vocabularies are large."""
    total = 0.0
    for begin in range(0, len(one.logits), TOKENS_AT_ONCE):
        part = slice(begin, begin + TOKENS_AT_ONCE)
        logits, expected = one.logits[part].float(), one.expected[part].float()
        total += torch.nn.functional.kl_div(
            logits.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="sum"
        ).item()
    return total


def _same_best(one: Compared) -> int:
    return int((one.logits.argmax(-1) == one.expected.argmax(-1)).sum())
