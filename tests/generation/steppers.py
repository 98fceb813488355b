"""Backends whose steppers run the original, right or wrong."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

import cpuaccel
from cpuaccel import Backend, Host, Options, Stepper, Unload
from tests.fake_backends import Fake

Step = Callable[[Any, dict[str, Any]], object]
"""Takes the model and the arguments of its forward, and returns its output."""


def as_it_is(model: Any, inputs: dict[str, Any]) -> object:
    """The original's step."""
    return model(**inputs)


def stepping(
    forward: Step = as_it_is, build: Callable[[torch.nn.Module], object] | None = None
) -> type[Backend[Options]]:
    """Make a backend, named ``stepping``, with a stepper.

    Args:
        forward: computes one call of the stepper.
        build: called with the model when the stepper is built.
    """

    class Stepping(Fake):
        name = "stepping"
        generates = True

        def stepper(
            self, model: torch.nn.Module, host: Host, unload: Unload | None = None
        ) -> Stepper:
            copied = cpuaccel.shared_copy(model)
            if build is not None:
                build(copied)

            def step(**inputs: Any) -> object:
                return forward(copied, inputs)

            return Stepper(step, 1000, {"stepping": 1})

    return Stepping


class Faults:
    """Makes one call of a stepper fail.

    Attributes:
        kind: ``raises``, ``nan`` or ``nan in the first token``, which only chunks of tokens have.
        countdown: number of the call that fails, counted from now on; 0 for none.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.countdown = 0

    def forward(self, model: Any, inputs: dict[str, Any]) -> object:
        """Compute one call."""
        is_chunk = inputs["input_ids"].shape[1] > 1
        if self.countdown and (is_chunk or self.kind != "nan in the first token"):
            self.countdown -= 1
            if not self.countdown:
                self.countdown = -1_000_000
                return self._fail(model, inputs)
        return model(**inputs)

    def _fail(self, model: Any, inputs: dict[str, Any]) -> object:
        if self.kind == "raises":
            hook = model.model.layers[1].register_forward_pre_hook(_raise)
            try:
                return model(**inputs)
            finally:
                hook.remove()
        output = model(**inputs)
        if self.kind == "nan":
            output.logits[0, -1, 3] = float("nan")
        else:
            output.logits[:, 0] = float("nan")
        return output


def _raise(*_: object) -> None:
    raise RuntimeError("illegal instruction, nearly")


class _OwnCache:
    """Goes on with a cache of its own, which ignores what is done to the caller's.

    Args:
        crops: whether it follows crops.
    """

    def __init__(self, *, crops: bool) -> None:
        self._crops = crops
        self._own: dict[int, tuple[object, DynamicCache]] = {}

    def __call__(self, model: Any, inputs: dict[str, Any]) -> object:
        cache = inputs["past_key_values"]
        if cache.get_seq_length() == 0:
            own = DynamicCache(config=model.config)
            own.activate_past_recording()
            self._own[id(cache)] = cache, own
        _, own = self._own[id(cache)]
        excess = own.get_seq_length() - cache.get_seq_length()
        if self._crops and excess:
            own.crop(-excess)
        output = model(**{**inputs, "past_key_values": own})
        model(**inputs)
        output.past_key_values = cache
        return output


def _biased(model: Any, inputs: dict[str, Any]) -> object:
    output = model(**inputs)
    output.logits[..., 7] += 1
    return output


def _without(name: str, model: Any, inputs: dict[str, Any]) -> object:
    return model(**{key: value for key, value in inputs.items() if key != name})


def without_positions(model: Any, inputs: dict[str, Any]) -> object:
    """Count padding as positions: wrong in a padded batch, but for rotary embeddings."""
    return _without("position_ids", model, inputs)


def _forgetful(model: Any, inputs: dict[str, Any]) -> object:
    """Computes without what the cache holds, and extends it."""
    model(**inputs)
    return model(input_ids=inputs["input_ids"], use_cache=False)


def _not_extending(model: Any, inputs: dict[str, Any]) -> object:
    cache = inputs["past_key_values"]
    length = cache.get_seq_length()
    output = model(**inputs)
    if length:
        cache.crop(length - cache.get_seq_length())
    return output


def _wrong_steps(model: Any, inputs: dict[str, Any]) -> object:
    output = model(**inputs)
    if inputs["input_ids"].shape[1] == 1:
        output.logits[..., 7] += 1
    return output


def _nan(model: Any, inputs: dict[str, Any]) -> object:
    output = model(**inputs)
    output.logits[..., 7] = float("nan")
    return output


def other_steppers() -> dict[str, Step]:
    """Steppers that are wrong, by what they do."""
    return {
        "adds a bias": _biased,
        "returns NaN": _nan,
        "ignores the mask": functools.partial(_without, "attention_mask"),
        "ignores reorder": _OwnCache(crops=True),
        "ignores crop": _OwnCache(crops=False),
        "forgets the cache": _forgetful,
        "does not extend the cache": _not_extending,
        "wrong in steps only": _wrong_steps,
    }
