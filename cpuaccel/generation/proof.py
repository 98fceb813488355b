"""Comparing a stepper with the original, token by token, before it serves ``generate``."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from cpuaccel.errors import BackendError
from cpuaccel.generation.cache import let_grow
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

MOST_DIVERGENCE = 0.01
"""Largest mean divergence of the next token's distribution that is accepted of a backend with a
tolerance of its own, in nats (Kullback-Leibler)."""

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
        tolerance: largest accepted difference, relative to the largest logit; 0 where only the
            divergence is limited.
        differences: one for each probe.
        divergence: mean divergence of the next token's distribution, in nats.
        same_best: share of tokens whose best next token is the same.
    """

    tolerance: float
    differences: tuple[Difference, ...]
    divergence: float
    same_best: float

    def __str__(self) -> str:
        worst = max(self.differences, key=lambda d: d.relative)
        limit = (
            f"tolerance {self.tolerance:g}"
            if self.tolerance
            else f"divergence {self.divergence:.2g} of at most {MOST_DIVERGENCE} nat"
        )
        return (
            f"largest difference {worst.relative:.2g} of the logits' magnitude "
            f"({limit}; {len(self.differences)} probes)"
        )


def prove(
    model: PreTrainedModel, forward: Forward, tolerance: float, *, by_divergence: bool
) -> Closeness:
    """Compare the logits for a prompt, steps, chunks, cropped and reordered caches, and padding.

    Args:
        model: the original.
        forward: the stepper's.
        tolerance: largest accepted difference, relative to the largest logit.
        by_divergence: limit the divergence of the distributions instead.

    Raises:
        BackendError: they differ by more.
    """
    compared = [
        *_single(model, forward),
        *_padded(model, forward),
        *_rolled_back(model, forward),
    ]
    differences = tuple(_difference(one) for one in compared)
    logits = torch.cat([one.logits for one in compared]).float()
    expected = torch.cat([one.expected for one in compared]).float()
    closeness = Closeness(
        0.0 if by_divergence else tolerance,
        differences,
        _divergence(logits, expected),
        (logits.argmax(-1) == expected.argmax(-1)).float().mean().item(),
    )
    remedy = "Leave the step out, or report this to the plugin's author"
    if by_divergence and not closeness.divergence <= MOST_DIVERGENCE:
        raise BackendError(
            f"the distributions of the next token differ by {closeness.divergence:.3g} nat on "
            f"average, more than {MOST_DIVERGENCE}",
            remedy,
        )
    for difference in differences:
        if not by_divergence and not difference.relative <= tolerance:
            raise BackendError(
                f"with {difference.probe} {difference}, tolerance {tolerance:g}", remedy
            )
    return closeness


def _single(model: PreTrainedModel, forward: Forward) -> Iterator[Compared]:
    ids = _tokens(model, 1, PROMPT + STEPS)
    expected = _logits(model(input_ids=ids, use_cache=False))[0]
    step = _Run(model, forward)
    yield Compared("a prompt", step(ids[:, :PROMPT])[0], expected[:PROMPT])
    steps = [step(ids[:, at : at + 1])[0] for at in range(PROMPT, ids.shape[1])]
    yield Compared("single steps", torch.cat(steps), expected[PROMPT:])


def _rolled_back(model: PreTrainedModel, forward: Forward) -> Iterator[Compared]:
    ids = _tokens(model, 1, PROMPT + CHUNK)
    expected = _logits(model(input_ids=ids, use_cache=False))[0]
    step = _Run(model, forward)
    step.cache.activate_past_recording()  # type: ignore[no-untyped-call]
    step(ids[:, :PROMPT])
    yield Compared("a chunk", step(ids[:, PROMPT:])[0], expected[PROMPT:])
    step.cache.crop(-CHUNK + 2)
    after = ids[:, PROMPT + 2 : PROMPT + 3]
    yield Compared("a cropped cache", step(after)[0], expected[PROMPT + 2 : PROMPT + 3])


def _padded(model: PreTrainedModel, forward: Forward) -> Iterator[Compared]:
    batch, total = len(PADDED), PROMPT + PADDED_STEPS
    ids = _tokens(model, batch, total)
    mask = torch.ones(batch, total, dtype=torch.int64)
    for row, length in enumerate(PADDED):
        mask[row, : PROMPT - length] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    real = mask.bool()
    reference = _Run(model, model)
    expected = reference(ids, mask, positions)
    step = _Run(model, forward)
    prompt = step(ids[:, :PROMPT], mask[:, :PROMPT], positions[:, :PROMPT])
    seen = real[:, :PROMPT]
    yield Compared("a padded batch", prompt[seen], expected[:, :PROMPT][seen])
    order = torch.tensor([2, 0, 1])
    steps = []
    for at in range(PROMPT, total):
        if at == PROMPT + PADDED_STEPS // 2:
            step.cache.reorder_cache(cast(torch.LongTensor, order))
            ids, mask, positions, expected = (t[order] for t in (ids, mask, positions, expected))
        now = slice(at, at + 1)
        logits = step(ids[:, now], mask[:, : at + 1], positions[:, now])
        steps.append(Compared("steps of reordered rows", logits[:, 0], expected[:, at]))
    yield from steps


class _Run:
    """A model with a cache of its own; returns logits of shape (batch, tokens, vocabulary)."""

    def __init__(self, model: PreTrainedModel, forward: Forward) -> None:
        self._forward = forward
        self._has_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        let_grow(self.cache)

    def __call__(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        named: dict[str, object] = {} if mask is None else {"attention_mask": mask}
        if positions is not None and self._has_positions:
            named["position_ids"] = positions
        return _logits(
            self._forward(input_ids=ids, past_key_values=self.cache, use_cache=True, **named)
        )


def _tokens(model: PreTrainedModel, batch: int, length: int) -> torch.Tensor:
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    random = torch.Generator().manual_seed(batch)
    return torch.randint(vocabulary, (batch, length), generator=random)


def _logits(output: object) -> torch.Tensor:
    logits = getattr(output, "logits", None)
    assert isinstance(logits, torch.Tensor)
    return logits


def _difference(one: Compared) -> Difference:
    absolute = (one.logits.float() - one.expected.float()).abs().max().item()
    relative = absolute / max(one.expected.float().abs().max().item(), 1e-30)
    return Difference(one.probe, "logits", absolute, relative)


def _divergence(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return torch.nn.functional.kl_div(
        logits.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="batchmean"
    ).item()
