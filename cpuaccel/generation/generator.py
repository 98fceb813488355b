"""Serving ``generate`` by a backend's stepper."""

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import MethodType
from typing import cast

import torch
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from cpuaccel.artifact.mapping.kept_build import KeptStepper
from cpuaccel.errors import BackendError, StepError
from cpuaccel.generation import suppressed_tokens
from cpuaccel.generation.beams import search
from cpuaccel.generation.build import Generation, build, generating_step, restore, verdict
from cpuaccel.generation.cache import (
    Growable,
    Restorable,
    bytes_of,
    cast_cross_layers,
    let_grow,
    unsupported,
)
from cpuaccel.generation.encoder import ServedEncoder
from cpuaccel.generation.meter import Meter
from cpuaccel.generation.proof.probes import STORED
from cpuaccel.generation.subject import (
    DECODERS,
    encoder_of,
    example_call,
    extra_outputs,
    stepped_part,
)
from cpuaccel.model.redirected import can_redirect, redirect, redirected
from cpuaccel.model.signature import Inputs
from cpuaccel.plugin.backend import Stepper
from cpuaccel.report import CallKey, Outcome, Status
from cpuaccel.serving import Serving
from cpuaccel.variants import Variants

logger = logging.getLogger("cpuaccel")


class Generator:
    """Runs Transformers' ``generate``, with each ``forward`` in it served by the stepper."""

    def __init__(self, variants: Variants, serving: Serving) -> None:
        self._variants = variants
        self._serving = serving
        self._lock = threading.RLock()
        self._state = -1
        self._generation: Generation | None = None
        self._encoder: ServedEncoder | None = None

    def generate(self, eager: torch.nn.Module, *args: object, **kwargs: object) -> object:
        """Run ``generate`` of the original in eval mode, with its arguments.

        Raises:
            StepError: with ``strict=True``, the original is needed.
        """
        self._variants.reference.released.restore_original()
        method = cast(Callable[..., object], eager.generate)
        generation = self._built(eager)
        stepper, reason = generation.stepper, generation.outcome.reason
        if not can_redirect(method, eager):
            stepper, reason = None, "it is not a method of the model's class"
        if stepper is None:
            self._serving.count_fallback(CallKey.METHOD, f"generate is not accelerated: {reason}")
            return method(*args, **kwargs)
        assert isinstance(eager, PreTrainedModel)
        part = stepped_part(eager)
        call = _Forward(part, stepper, self._serving, generation.meter, self._encoder)
        parts, searching = suppressed_tokens.parts(eager), search.parts(part)
        if self._encoder is not None:
            parts |= self._encoder.parts
        if part is eager:
            parts |= searching
        else:
            parts[DECODERS[eager.config.model_type]] = redirected(part, call, searching)
        begun = time.perf_counter()
        output = redirect(
            cast(MethodType, method), call if part is eager else eager, args, kwargs, parts
        )
        generation.meter.record_generate(time.perf_counter() - begun)
        if not call.fell_back:
            self._variants.report.count(CallKey.OPTIMIZED)
        return output

    @property
    def example(self) -> dict[str, object] | None:
        """Inputs of a call of the model, if a stepper was built."""
        if self._generation is None or self._generation.stepper is None:
            return None
        original, tokens = self._variants.reference.original, self._generation.tokens
        assert isinstance(original, PreTrainedModel)
        if tokens is None or encoder_of(original) is not None:
            return example_call(original)
        return {"input_ids": tokens[:1, :STORED], "use_cache": False}

    @property
    def kept(self) -> KeptStepper | None:
        """What the step that generates kept of its build, if that is all that was built."""
        generation = self._generation
        stepper = None if generation is None else generation.stepper
        if generation is None or stepper is None or stepper.kept is None:
            return None
        if self._encoder is not None:
            return None
        return KeptStepper(generation.outcome.step, generation.meter.bandwidth, stepper.kept)

    def restore(
        self, eager: torch.nn.Module, kept: KeptStepper, prompt: Inputs, logits: torch.Tensor
    ) -> bool:
        """Restore the stepper of what was kept; see ``cpuaccel.optimized.restore_generation``."""
        variants, ids = self._variants, prompt.get("input_ids")
        (plan,) = variants.plans
        planned = generating_step(plan)
        if not isinstance(eager, PreTrainedModel) or not isinstance(ids, torch.Tensor):
            return False
        if planned is None or planned.step.backend != kept.step or not verdict(eager):
            return False
        try:
            built = restore(planned, plan, eager, variants.settings, kept, ids, logits)
        except BackendError as error:
            logger.warning("what was kept for generate can't be used; rebuilding: %s", error)
            return False
        self._state, self._generation = variants.resets, built
        variants.report.generation = built
        return True

    def prepare(self, eager: torch.nn.Module) -> None:
        """Build the stepper for the original in eval mode.

        Raises:
            StepError: with ``strict=True``, it can't be built.
        """
        generation = self._built(eager)
        if generation.stepper is None and self._variants.settings.strict:
            raise StepError(f"strict=True, but generate needs the original: {generation.outcome}")

    def _built(self, eager: torch.nn.Module) -> Generation:
        """Build what generates, once for each state of the model."""
        with self._lock:
            variants = self._variants
            if self._generation is None or self._state != variants.resets:
                self._state = variants.resets
                self._generation = self._build(eager)
                variants.report.generation = self._generation
                if self._generation.outcome.status is not Status.APPLIED:
                    logger.debug("%s", self._generation)
            return self._generation

    def _build(self, eager: torch.nn.Module) -> Generation:
        variants = self._variants
        pipeline = variants.report.pipeline
        if variants.forked:  # the parent's encoder is kept: it may wait for its threads
            return _not_applied(pipeline, "the process was forked")
        self._encoder = None
        allowed = verdict(eager)
        if not allowed or not isinstance(eager, PreTrainedModel):
            return _not_applied(pipeline, allowed.reason, allowed.remedy)
        for plan in variants.plans:
            planned = generating_step(plan)
            if planned is not None:
                on_move = variants.reference.weights.accept_moved
                generation = build(planned, plan, eager, variants.settings, on_move)
                encoder = encoder_of(eager)
                if generation.stepper is None or encoder is None:
                    return generation
                self._encoder = ServedEncoder(eager, encoder, plan.pipeline, variants.settings)
                return replace(generation, encoder=self._encoder.report)
        raise AssertionError("a generator is made only where a step generates")


def _not_applied(step: str, reason: str, remedy: str = "") -> Generation:
    return Generation(Outcome(step, Status.SKIPPED, reason, remedy))


class _Forward:
    """What ``self(...)`` in one call of ``generate`` reaches.

    Attributes:
        fell_back: whether the original served any of the calls.
    """

    def __init__(
        self,
        eager: PreTrainedModel,
        stepper: Stepper,
        serving: Serving,
        meter: Meter,
        encoder: ServedEncoder | None,
    ) -> None:
        self._eager = eager
        self._encoder = encoder
        self._stepper = stepper
        self._serving = serving
        self._meter = meter
        self.fell_back = False
        functools.update_wrapper(self, eager.forward)
        self.__signature__ = inspect.signature(eager.forward)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Serve one prefill or step."""
        if args:
            kwargs = self._named(args, kwargs)
        first = None if self._encoder is None else self._encoder.first_call(kwargs)
        if first is None:
            return self._serve(kwargs, kwargs)
        output = self._serve(first, kwargs)
        assert isinstance(output, ModelOutput)
        return type(output)(**{k: v for k, v in output.items() if k != "past_key_values"})

    def _serve(self, inputs: dict[str, object], asked: dict[str, object]) -> object:
        """Serve a call with a cache, by the original with what was asked where it must be."""
        reason = _unserved(inputs)
        if reason:
            return self._by_original(reason, asked)
        cache = inputs["past_key_values"]
        assert isinstance(cache, Growable)
        let_grow(cache)
        length, before = cache.get_seq_length(), Restorable(cache)
        begun = time.perf_counter()
        try:
            output = self._stepper.forward(**inputs)
        except Exception as error:
            logger.debug("the stepper raised", exc_info=True)
            before.restore()
            if isinstance(error, BackendError):
                return self._by_original(error.reason, asked)
            return self._by_original(f"{type(error).__name__} in the stepper", asked)
        seconds = time.perf_counter() - begun
        logits = getattr(output, "logits", None)
        assert isinstance(logits, torch.Tensor)
        if not _all_finite(logits):
            before.restore()
            return self._by_original("NaN or infinity in the logits", asked)
        tokens = cache.get_seq_length() - length
        self._meter.record(len(logits), tokens, seconds, bytes_of(cache))
        return output

    def _named(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        """Name the inputs that are passed by position."""
        bound = self.__signature__.bind(*args, **kwargs)
        named: dict[str, object] = {}
        for name, value in bound.arguments.items():
            if self.__signature__.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            else:
                named[name] = value
        return named

    def _by_original(self, reason: str, kwargs: dict[str, object]) -> object:
        self.fell_back = True
        self._serving.count_fallback(CallKey.METHOD, f"a call in generate is not served: {reason}")
        cast_cross_layers(kwargs.get("past_key_values"), self._eager.dtype)
        return self._eager(**kwargs)


def _all_finite(logits: torch.Tensor) -> bool:
    # The sum takes a twentieth of the time. Of large logits it may overflow.
    return bool(logits.sum().isfinite()) or bool(logits.isfinite().all())


def _unserved(kwargs: dict[str, object]) -> str:
    """Say why a stepper can't serve a call; empty if it can."""
    if reason := extra_outputs(kwargs):
        return reason
    if kwargs.get("use_cache") is False:
        return "use_cache=False"
    return unsupported(kwargs.get("past_key_values"))
