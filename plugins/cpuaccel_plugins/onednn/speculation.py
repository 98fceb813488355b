"""Speculative decoding: a draft of the decoder in fewer bits guesses tokens, all checked at once.

A step of one row reads all weights for one token. Here the draft, the same decoder with packed
weights, guesses some tokens, and one call of the exact decoder computes the logits after each of
them: it reads the weights once. As long as ``generate`` takes the tokens that were guessed, their
logits are there already; with its first other token the rest is dropped. All logits are those of
the exact decoder, so a guess changes when they are computed, and never what they are.

Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding",
2023, with the draft sharing the exact decoder's cache.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)
from transformers.utils.generic import ModelOutput

from cpuaccel import Stepper
from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.model import make_stepper
from cpuaccel_plugins.decoding.packed import Int4Linear, Int8Linear, PackedLinear, is_finite

DRAFTS: dict[int, type[PackedLinear]] = {4: Int4Linear, 8: Int8Linear}

GUESSES = 4
"""Tokens that are guessed at a time."""

MOST_WAITING = 32
"""Most steps without a guess after tokens that were guessed wrong."""

IDS = ("input_ids", "decoder_input_ids")
POSITIONS = ("position_ids", "decoder_position_ids")
KEPT = ("past_key_values", "use_cache", "return_dict", "encoder_outputs", "encoder_hidden_states")
"""Inputs of a step that are the same for several tokens."""

NOT_COMPARED = {*IDS, "past_key_values", "use_cache", "return_dict", "logits_to_keep"}
"""Inputs that don't change the logits, or that are compared in another way."""


def speculate(exact: Stepper, model: torch.nn.Module, bits: int) -> Stepper:
    """Let a stepper guess tokens by a draft of its decoder in fewer bits.

    Raises:
        BackendError: the kernels can't be compiled here.
    """

    def choose(name: str, linear: torch.nn.Linear) -> type[FewRowsLinear]:
        return DRAFTS[bits] if is_finite(linear.weight) else FewRowsLinear

    assert isinstance(model, PreTrainedModel)
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    if any(isinstance(layer, DynamicSlidingWindowLayer) for layer in cache.layers):
        none = {"draft": "none, since the model has sliding windows"}
        return replace(exact, evidence={**exact.evidence, **none})
    draft = make_stepper(model, choose, None)
    evidence = {**exact.evidence, "draft": f"{bits} bits, {draft.bytes_per_step / 1e6:.0f} MB"}
    made = Speculation(exact.forward, draft.forward)
    return replace(
        exact, forward=made, bytes_per_step=0, evidence=evidence, counted=lambda: str(made)
    )


@dataclass
class _Ahead:
    """What is known of a cache's next tokens.

    Attributes:
        tokens: that were guessed, the next one first.
        logits: of the exact decoder after each of them, shape (1, 1, vocabulary).
        kind: of its output.
        rest: what else is in its output, without the cache, which would never be freed.
        inputs: of the call that computed them, likewise.
        full: all keys and values of each layer, with those of the guessed tokens.
        views: what the layers hold now. Whoever changes the cache replaces them.
        waiting: steps until the next guess.
        wait: for how many steps the next wrong guess lets it wait.
    """

    tokens: list[int] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)
    kind: type[ModelOutput] = ModelOutput
    rest: dict[str, object] = field(default_factory=dict)
    inputs: dict[str, object] = field(default_factory=dict)
    full: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    views: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    waiting: int = 0
    wait: int = 1


class Speculation:
    """The ``forward`` of a stepper that guesses tokens."""

    def __init__(self, exact: Callable[..., object], draft: Callable[..., object]) -> None:
        """Take the ``forward`` of both decoders, which work with the same cache."""
        self._exact = exact
        self._draft = draft
        self._known: WeakKeyDictionary[Cache, _Ahead] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._taken = self._guessed = 0

    def __str__(self) -> str:
        return f"{self._taken} of {self._guessed} guesses right"

    def __call__(self, **inputs: object) -> object:
        """Take and return what the model's own ``forward`` does."""
        cache = inputs.get("past_key_values")
        if not isinstance(cache, Cache):
            return self._exact(**inputs)
        with self._lock:
            ahead = self._known.pop(cache, _Ahead())
        layers = _layers(cache)
        name = _name_of_ids(inputs)
        if name is None or layers is None:
            return self._exact(**inputs)
        ids = cast(torch.Tensor, inputs[name])
        was_guessed = (
            bool(ahead.tokens)
            and ahead.tokens[0] == int(ids)
            and _is_unchanged(ahead, layers)
            and _go_on(ahead, inputs)
        )
        if was_guessed:
            _take(ahead, layers)
        else:
            _judge(ahead)
        if ahead.waiting:
            ahead.waiting -= 1
            output = self._exact(**inputs)
        else:
            if not was_guessed:
                self._guess(ahead, layers, inputs, name)
            output = ahead.kind(**ahead.rest, logits=ahead.logits.pop(0), past_key_values=cache)
        with self._lock:
            self._known[cache] = ahead
            self._taken += was_guessed
        return output

    def _guess(
        self,
        ahead: _Ahead,
        layers: list[DynamicLayer],
        inputs: Mapping[str, object],
        name: str,
    ) -> None:
        """Guess tokens, and compute the exact logits after the step's token and after each."""
        before = _held(layers)
        tokens = [cast(torch.Tensor, inputs[name])]
        for number in range(GUESSES):
            guessed = self._draft(**_inputs(inputs, name, tokens[-1], number))
            tokens.append(_logits(guessed)[:, -1].argmax(-1, keepdim=True))
        _set(layers, before)
        all_ids = torch.cat(tokens, 1)
        of_all = _inputs(inputs, name, all_ids)
        output = cast(ModelOutput, self._exact(**of_all))
        ahead.inputs = {k: v for k, v in of_all.items() if v is not None and k not in NOT_COMPARED}
        ahead.kind, ahead.logits = type(output), list(torch.split(_logits(output), 1, dim=1))
        ahead.rest = {k: v for k, v in output.items() if k not in ("logits", "past_key_values")}
        ahead.tokens = [int(token) for token in tokens[1:]]
        ahead.full = _held(layers)
        _show(ahead, layers)
        with self._lock:
            self._guessed += GUESSES


def _is_unchanged(ahead: _Ahead, layers: list[DynamicLayer]) -> bool:
    """Whether the cache holds what it was left with."""
    return all(
        layer.keys is keys and layer.values is values
        for layer, (keys, values) in zip(layers, ahead.views, strict=True)
    )


def _go_on(ahead: _Ahead, inputs: Mapping[str, object]) -> bool:
    """Whether a step's other inputs are those with which its output was computed."""
    given = {k: v for k, v in inputs.items() if v is not None and k not in NOT_COMPARED}
    if given.keys() != ahead.inputs.keys():
        return False
    number = GUESSES + 1 - len(ahead.tokens)
    for name, value in given.items():
        expected = ahead.inputs[name]
        if isinstance(value, torch.Tensor) and isinstance(expected, torch.Tensor):
            if name in POSITIONS:
                expected = expected[:, number : number + 1]
            elif name == "attention_mask":
                expected = expected[:, : value.shape[1]]
            if value is not expected and not torch.equal(value, expected):
                return False
        elif _states(value) is not _states(expected):
            return False
    return True


def _states(encoder_outputs: object) -> object:
    """What a decoder reads of an encoder's outputs."""
    return encoder_outputs[0] if isinstance(encoder_outputs, ModelOutput) else encoder_outputs


def _take(ahead: _Ahead, layers: list[DynamicLayer]) -> None:
    """Let the cache hold the next token that was guessed."""
    del ahead.tokens[0]
    _show(ahead, layers)


def _judge(ahead: _Ahead) -> None:
    """Wait before the next guess if most of the last one was wrong, each time longer."""
    if not ahead.full:
        return
    if GUESSES - len(ahead.tokens) < GUESSES // 2:
        ahead.waiting, ahead.wait = ahead.wait, min(2 * ahead.wait, MOST_WAITING)
    else:
        ahead.wait = 1
    ahead.tokens, ahead.logits, ahead.full, ahead.views = [], [], [], []


def _show(ahead: _Ahead, layers: list[DynamicLayer]) -> None:
    """Let the layers hold the tokens that were taken, and not those that are only guessed."""
    length = ahead.full[0][0].shape[2] - len(ahead.tokens)
    ahead.views = [(keys[:, :, :length], values[:, :, :length]) for keys, values in ahead.full]
    _set(layers, ahead.views)


def _logits(output: object) -> torch.Tensor:
    logits: torch.Tensor = output.logits  # type: ignore[attr-defined]
    return logits


def _held(layers: list[DynamicLayer]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(cast(torch.Tensor, one.keys), cast(torch.Tensor, one.values)) for one in layers]


def _set(layers: list[DynamicLayer], held: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for layer, (keys, values) in zip(layers, held, strict=True):
        layer.keys, layer.values = keys, values


def _layers(cache: Cache) -> list[DynamicLayer] | None:
    """The layers of a cache that holds one row; None where it is empty, or another one."""
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if not isinstance(own, DynamicCache) or not own.layers:
        return None
    layers = [layer for layer in own.layers if isinstance(layer, DynamicLayer)]
    if len(layers) < len(own.layers) or any(layer.is_sliding for layer in layers):
        return None
    if not all(layer.keys is not None and layer.keys.numel() for layer in layers):
        return None
    return layers if all(len(cast(torch.Tensor, layer.keys)) == 1 for layer in layers) else None


def _name_of_ids(inputs: Mapping[str, object]) -> str | None:
    """The name of the tokens, if a call is a step of one row whose inputs are all known."""
    given = {name: value for name, value in inputs.items() if value is not None}
    names = [name for name in IDS if name in given]
    if len(names) != 1 or not _has_shape(given.pop(names[0]), 1, 1):
        return None
    keep = given.pop("logits_to_keep", 0)
    if not isinstance(keep, int) or keep not in (0, 1):
        return None
    for name in POSITIONS:
        if not _has_shape(given.pop(name, torch.empty(1, 1)), 1, 1):
            return None
    mask = given.pop("attention_mask", None)
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.dim() == 2):
        return None
    return names[0] if given.keys() <= {*KEPT} else None


def _has_shape(value: object, *shape: int) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == shape


def _inputs(
    inputs: Mapping[str, object], name: str, ids: torch.Tensor, skipped: int = 0
) -> dict[str, object]:
    """The inputs for other tokens, the first of which comes ``skipped`` after the step's."""
    tokens = ids.shape[1]
    made = {**inputs, name: ids}
    for positions in POSITIONS:
        place = made.get(positions)
        if isinstance(place, torch.Tensor):
            made[positions] = place + torch.arange(skipped, skipped + tokens)
    mask, more = made.get("attention_mask"), skipped + tokens - 1
    if name == "input_ids" and isinstance(mask, torch.Tensor) and more:
        made["attention_mask"] = torch.cat([mask, mask.new_ones(1, more)], 1)
    if made.get("logits_to_keep"):
        made["logits_to_keep"] = tokens
    return made
