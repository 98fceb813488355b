"""Comparing a stepper with the original, token by token, before it serves ``generate``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch

from cpuaccel.errors import BackendError
from cpuaccel.generation.cache import Growable, cast_cross_layers
from cpuaccel.generation.subject import Subject, new_cache, positions_of
from cpuaccel.report import Difference

PROMPT = 12
"""Tokens of the longest prompt."""

STEPS = 16
"""Single steps after it."""

PADDED = (PROMPT, 9, 5)
"""Lengths of the prompts of a batch, padded on the left."""

PADDED_STEPS = 4

CHUNK = 5
"""Tokens at once in the midst, as in assisted decoding."""

FEWEST_POSITIONS = 2 * (PROMPT + STEPS)
"""Positions that a model must have."""

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

Forward = Callable[..., object]


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


def prove(
    subject: Subject,
    forward: Forward,
    tolerance: float,
    divergence: float | None = None,
    largest_difference: float = LARGEST_DIFFERENCE,
) -> Closeness:
    """Compare the logits for a prompt, steps, chunks, cropped and reordered caches, and padding.

    Args:
        subject: the original.
        forward: the stepper's.
        tolerance: largest accepted difference, relative to the largest logit.
        divergence: limit the mean divergence of the distributions by this instead.
        largest_difference: the limit of the differences then.

    Raises:
        BackendError: they differ by more.
    """
    tokens = _sample(subject, forward)
    probes = (_single, _far, _padded, _rolled_back)
    compared = [one for probe in probes for one in probe(subject, forward, tokens)]
    differences = tuple(_difference(one) for one in compared)
    tokens_compared = sum(len(one.logits) for one in compared)
    closeness = Closeness(
        tolerance if divergence is None else 0.0,
        divergence or 0.0,
        differences,
        sum(map(_divergence, compared)) / tokens_compared,
        sum(map(_same_best, compared)) / tokens_compared,
    )
    if divergence is not None and not closeness.divergence <= divergence:
        raise BackendError(
            f"the distributions of the next token differ by {closeness.divergence:.3g} nat on "
            f"average, more than {divergence}",
            REMEDY,
        )
    tolerance = tolerance if divergence is None else largest_difference
    for difference in differences:
        if not difference.relative <= tolerance:
            raise BackendError(
                f"with {difference.probe} {difference}, tolerance {tolerance:g}", REMEDY
            )
    return closeness


def _single(subject: Subject, forward: Forward, tokens: torch.Tensor) -> Iterator[Compared]:
    rows = slice(0, 1)
    ids = tokens[rows]
    expected = _whole(subject, ids, rows)[0]
    step = _Run(subject, forward, rows)
    yield Compared("a prompt", step(ids[:, :PROMPT])[0], expected[:PROMPT])
    steps = [step(ids[:, at : at + 1])[0] for at in range(PROMPT, ids.shape[1])]
    yield Compared("single steps", torch.cat(steps), expected[PROMPT:])


def _far(subject: Subject, forward: Forward, tokens: torch.Tensor) -> Iterator[Compared]:
    """Positions in the second half of those that the model has."""
    begin = (positions_of(subject.model) or 4 * FEWEST_POSITIONS) // 2
    rows = slice(1, 2)
    ids = tokens[rows, :PROMPT]
    positions = torch.arange(begin, begin + PROMPT)[None]
    expected = _Run(subject, subject.model, rows)(ids, positions=positions)
    logits = _Run(subject, forward, rows)(ids, positions=positions)
    yield Compared("far positions", logits[0], expected[0])


def _rolled_back(subject: Subject, forward: Forward, tokens: torch.Tensor) -> Iterator[Compared]:
    rows = slice(2, 3)
    ids = tokens[rows, : PROMPT + CHUNK]
    expected = _whole(subject, ids, rows)[0]
    step = _Run(subject, forward, rows)
    step.cache.activate_past_recording()  # type: ignore[no-untyped-call]
    step(ids[:, :PROMPT])
    yield Compared("a chunk", step(ids[:, PROMPT:])[0], expected[PROMPT:])
    step.cache.crop(-CHUNK + 2)
    after = ids[:, PROMPT + 2 : PROMPT + 3]
    yield Compared("a cropped cache", step(after)[0], expected[PROMPT + 2 : PROMPT + 3])
    cast_cross_layers(step.cache, subject.model.dtype)  # as when an original goes on
    by_original = _Run(subject, subject.model, rows, step.cache)(ids[:, PROMPT + 3 :])[0]
    yield Compared("the original over its cache", by_original, expected[PROMPT + 3 :])


def _padded(subject: Subject, forward: Forward, tokens: torch.Tensor) -> Iterator[Compared]:
    total = PROMPT + PADDED_STEPS
    ids = tokens[:, :total]
    mask = torch.ones(len(PADDED), total, dtype=torch.int64)
    for row, length in enumerate(PADDED):
        mask[row, : PROMPT - length] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    real = mask.bool()
    reference = _Run(subject, subject.model)
    expected = reference(ids, mask, positions)
    step = _Run(subject, forward)
    prompt = step(ids[:, :PROMPT], mask[:, :PROMPT], positions[:, :PROMPT])
    seen = real[:, :PROMPT]
    yield Compared("a padded batch", prompt[seen], expected[:, :PROMPT][seen])
    order = torch.tensor([2, 0, 1])
    steps = []
    for at in range(PROMPT, total):
        if at == PROMPT + PADDED_STEPS // 2:
            step.reorder(order)
            ids, mask, positions, expected = (t[order] for t in (ids, mask, positions, expected))
        now = slice(at, at + 1)
        logits = step(ids[:, now], mask[:, : at + 1], positions[:, now])
        steps.append(Compared("steps of reordered rows", logits[:, 0], expected[:, at]))
    yield from steps


class _Run:
    """A model with a cache; returns logits of shape (batch, tokens, vocabulary)."""

    def __init__(
        self,
        subject: Subject,
        forward: Forward,
        rows: slice | torch.Tensor = slice(None),
        cache: Growable | None = None,
    ) -> None:
        self._subject, self._forward, self._rows = subject, forward, rows
        self.cache = new_cache(subject.model) if cache is None else cache

    def __call__(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        inputs = self._subject.inputs(ids, self._rows, mask, positions)
        output = self._forward(**inputs, past_key_values=self.cache, use_cache=True)
        cache = getattr(output, "past_key_values", None)
        if cache is not None:  # as in generate: some decoders make another one at the first call
            self.cache = cache
        return _logits(output)

    def reorder(self, order: torch.Tensor) -> None:
        """Let the rows change places."""
        self.cache.reorder_cache(cast(torch.LongTensor, order))
        self._rows = order


def _whole(subject: Subject, ids: torch.Tensor, rows: slice) -> torch.Tensor:
    """The original's logits for all tokens at once, without a cache."""
    return _logits(subject.model(**subject.inputs(ids, rows), use_cache=False))


def _sample(subject: Subject, forward: Forward) -> torch.Tensor:
    """Sample the tokens of the probes by the stepper itself, shape (rows, tokens).

    Far from any text, as random tokens are, rounding changes a trained model's distribution by
    three times as much and more.
    """
    config = subject.model.config.get_text_config(decoder=True)
    random = torch.Generator().manual_seed(0)
    begin = subject.first_token
    if begin is not None:
        first = torch.full((len(PADDED), 1), begin)
    else:
        first = torch.randint(config.vocab_size, (len(PADDED), 1), generator=random)
    step, tokens = _Run(subject, forward), [first]
    while len(tokens) < PROMPT + STEPS:
        chances = step(tokens[-1])[:, -1].float().softmax(-1)
        if not bool(chances.isfinite().all()):
            raise BackendError("the logits are not finite", REMEDY)
        tokens.append(torch.multinomial(chances, 1, generator=random))
    return torch.cat(tokens, 1)


def _logits(output: object) -> torch.Tensor:
    logits = getattr(output, "logits", None)
    assert isinstance(logits, torch.Tensor)
    return logits


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
