"""Comparing a stepper with the original, token by token, before it serves ``generate``."""

from collections.abc import Callable, Iterator
from typing import cast

import torch

from cpuaccel.errors import BackendError
from cpuaccel.generation.cache import Growable, cast_cross_layers
from cpuaccel.generation.proof.closeness import (
    REMEDY,
    Closeness,
    Compared,
    Limits,
    closeness,
)
from cpuaccel.generation.subject import Subject, new_cache, positions_of

PROMPT = 12
"""Tokens of the longest prompt."""

STEPS = 16
"""Single steps after it."""

STORED, STORED_STEPS = 12, 3
"""Tokens whose logits by the original are saved, and how many of them are single steps."""

PADDED = (PROMPT, 9, 5)
"""Lengths of the prompts of a batch, padded on the left."""

PADDED_STEPS = 4

CHUNK = 5
"""Tokens at once in the midst, as in assisted decoding."""

FEWEST_POSITIONS = 2 * (PROMPT + STEPS)
"""Positions that a model must have."""

Forward = Callable[..., object]


def prove(subject: Subject, forward: Forward, tokens: torch.Tensor, limits: Limits) -> Closeness:
    """Compare the logits for a prompt, steps, chunks, cropped and reordered caches, and padding.

    Args:
        subject: the original.
        forward: the stepper's.
        tokens: what ``sample`` returned.
        limits: of the differences.

    Raises:
        BackendError: they differ by more.
    """
    probes = (_single, _far, _padded, _rolled_back)
    compared = [one for probe in probes for one in probe(subject, forward, tokens)]
    return closeness(compared, limits)


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


def sample(subject: Subject, forward: Forward) -> torch.Tensor:
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


def recheck(
    subject: Subject, forward: Forward, ids: torch.Tensor, expected: torch.Tensor, limits: Limits
) -> Closeness:
    """Compare the logits for a prompt and single steps after it with stored ones of the original.

    Args:
        subject: the original, which is not called.
        forward: the stepper's.
        ids: tokens, shape (1, tokens).
        expected: logits, shape (1, tokens, vocabulary).
        limits: of the differences.

    Raises:
        BackendError: they differ by more.
    """
    step = _Run(subject, forward, slice(0, 1))
    size = max(1, ids.shape[1] - STORED_STEPS)
    prompt = step(ids[:, :size])[0]
    compared = [Compared("a prompt", prompt, expected[0, :size])]
    steps = [step(ids[:, at : at + 1])[0] for at in range(size, ids.shape[1])]
    if steps:
        compared.append(Compared("single steps", torch.cat(steps), expected[0, size:]))
    return closeness(compared, limits)


def _logits(output: object) -> torch.Tensor:
    logits = getattr(output, "logits", None)
    assert isinstance(logits, torch.Tensor)
    return logits
