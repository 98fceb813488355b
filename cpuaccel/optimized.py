"""The optimized model: called like the original, never with a wrong output."""

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Self

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.variant import Variant
from cpuaccel.errors import ArtifactError, SignatureError
from cpuaccel.model.output import tensors
from cpuaccel.model.redirected import can_redirect, redirect
from cpuaccel.model.signature import Inputs
from cpuaccel.model.torch_modes import inference, is_captured
from cpuaccel.model.weights import WatchedWeights
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.plan import make_plan
from cpuaccel.plugin.host import host
from cpuaccel.report import CallKey, Fallback, Report
from cpuaccel.served_part import CalledParts, ServedParts
from cpuaccel.serving import Serving
from cpuaccel.variants import Choose, Route, Variants

if TYPE_CHECKING:
    from cpuaccel.artifact.mapping.kept_build import KeptStepper
    from cpuaccel.generation.generator import Generator

logger = logging.getLogger("cpuaccel")

TRANSFORMERS = ("transformers>=5",)
"""The first whose caches have layers."""

_GENERATING = frozenset({"generate", "generate_batch", "generate_speech"})
"""Methods that call models in loops."""


class OptimizedModel(torch.nn.Module):
    """A model that was optimized by a pipeline, for inference.

    It is called like the original, returns the same output type without gradients, has the
    original's attributes and is an instance of its class (``isinstance``, ``__class__``). The
    original serves calls in training mode. Other methods run the original's code, in which
    ``self(...)`` and calls of parts of ``self`` are optimized; those that compute without them are
    logged and counted.
    With ``strict=True`` a call that the optimized model can't serve raises ``StepError``.
    """

    def __init__(self, variants: Variants) -> None:
        """See ``cpuaccel.optimize``."""
        super().__init__()
        self._modules["original"] = variants.reference.original
        self.training = False
        self._variants = variants
        self._reference = variants.reference
        self._serving = Serving(variants)
        self._generator = _make_generator(variants, self._serving)
        self._parts = ServedParts(variants)

        # Trainer and others read the names of the inputs from the signature of forward.
        self.forward = functools.partial(self._serve)
        functools.update_wrapper(self.forward, variants.reference.original.forward)

    def _serve(self, *args: object, **kwargs: object) -> object:
        reference = self._reference
        if self.training:
            self.report.count(CallKey.TRAINING)
            return self.original(*args, **kwargs)
        if is_captured():
            reference.released.restore_original()
            return reference.eager(*args, **kwargs)
        self._variants.refresh()
        try:
            inputs = reference.binder.bind(args, kwargs)
        except SignatureError:
            return reference.eager(*args, **kwargs)  # raises what the original raises
        with inference():
            return self._serving.serve(inputs)

    @property
    def report(self) -> Report:
        """What was done, and which model served the calls since then."""
        return self._variants.report

    @property
    def original(self) -> torch.nn.Module:
        """The caller's model. Restores weights released by ``keep_original=False``."""
        self._reference.released.restore_original()
        return self._reference.original

    @property
    def released(self) -> bool:
        """Whether weights of the original are released (``keep_original=False``)."""
        return bool(self._reference.released)

    @property
    def variants(self) -> list[Variant]:
        """The variants built so far, one for each way of calling."""
        return self._variants.built

    def prepare(self, example_inputs: Inputs) -> Route | Fallback:
        """Build the variant for calls like this one, if there is none yet.

        Args:
            example_inputs: inputs by name, in ``forward``'s order.

        Returns:
            The variant that serves such calls, or why they can't have one.

        Raises:
            StepError: with ``strict=True``, a step was not applied.
        """
        with torch.no_grad():
            return self._variants.get(example_inputs)

    def prepare_generation(self) -> None:
        """Build what serves ``generate`` now, instead of at the first call.

        Raises:
            StepError: with ``strict=True``, the original is needed.
        """
        if self._generator is not None:
            self._variants.refresh()
            self._generator.prepare(self._reference.eager)

    def refresh(self) -> None:
        """Take the original as it is now: the next call rebuilds the variants.

        Calls notice most changes themselves. They do not notice weights written through ``.data``
        or numpy, and changes of classes, functions, global variables, and objects that hold more
        than plain values.
        """
        self._variants.clear()

    def save(self, folder: str | Path, *, tokenizer: str | Path | None = None) -> list[Path]:
        """Write a folder that ``cpuaccel.load`` reads: pipeline, weights, examples, checksums.

        Where the pipeline ends in TorchScript, the folder has the script, which runs without
        cpuaccel: ``torch.jit.load(path)(input_ids=..., attention_mask=...)`` returns the tensors
        of the output in order.

        Args:
            folder: created if missing. An existing artifact is replaced atomically after all files
                are written; if writing fails, it is unchanged.
            tokenizer: a folder that ``save_pretrained`` of a tokenizer or processor wrote, such as
                the model's own. Its files are copied, so that ``from_pretrained`` finds them in
                ``folder``.

        Returns:
            The files written, ``pipeline.toml`` first.

        Raises:
            ArtifactError: the folder can't be written or contains other files, nothing was built
                yet, a weight is not a dense tensor, or ``tokenizer`` has no files of one.
        """
        from cpuaccel.artifact.writing import save

        if len(self._variants.plans) > 1:
            raise ArtifactError(
                f"can't save to {folder}: an artifact has one pipeline, but this model uses "
                f"several ({self.report.pipeline}). Keep the decision with "
                'optimize(..., lock="cpuaccel.lock"), or save a model for each pipeline'
            )
        self._reference.released.restore_original()
        generator = self._generator
        copied = None if tokenizer is None else Path(tokenizer)
        return save(
            self._variants,
            Path(folder),
            prompt=None if generator is None else generator.example,
            kept=None if generator is None else generator.kept,
            tokenizer=copied,
        )

    def train(self, mode: bool = True) -> Self:
        """Switch between training, where the original runs, and evaluation."""
        super().train(mode)
        if mode:
            self._variants.clear()  # the weights are about to change
        return self

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
        """Return the original's state."""
        return self.original.state_dict(*args, **kwargs)  # type: ignore[no-any-return,call-overload]

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> object:
        """Load weights into the original, and rebuild at the next call."""
        loaded = self.original.load_state_dict(
            state_dict,
            strict,
            **({"assign": True} if assign else {}),  # from torch 2.1 on
        )
        self._variants.clear()
        return loaded

    def _apply(self, *args: object, **kwargs: object) -> Self:
        # Trainer, pipelines and sentence-transformers call `to` before each run.
        original = self.original
        weights = WatchedWeights(original)
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if weights.changed():
            self._variants.clear()
        return self

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # Pipelines and Trainer read the name of the class and the labels that its forward takes.
        return type(self._reference.original)

    def _get_name(self) -> str:
        return OptimizedModel.__name__

    def __getattr__(self, name: str) -> object:  # type: ignore[override]
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_reference" not in self.__dict__:  # in __init__
                raise
        value = getattr(self._reference.original, name)
        if name in _GENERATING and callable(value):
            return self._counted_method(name, value)
        if can_redirect(value, self._reference.original):
            return self._redirected_method(name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        original = self._attribute_of_original(name)
        if original is None:
            super().__setattr__(name, value)  # type: ignore[arg-type]
        else:
            setattr(original, name, value)

    def __delattr__(self, name: str) -> None:
        original = self._attribute_of_original(name)
        if original is None:
            super().__delattr__(name)
        else:
            delattr(original, name)

    def _attribute_of_original(self, name: str) -> torch.nn.Module | None:
        """Return the original if it has this attribute and the optimized model has not."""
        if "_reference" not in self.__dict__:  # in __init__
            return None
        if name in self.__dict__ or hasattr(OptimizedModel, name):
            return None
        original = self._reference.original
        # The class first: a property may raise while it is not set, like LightningModule.trainer.
        known = hasattr(type(original), name) or hasattr(original, name)
        return self.original if known else None

    def __reduce__(self) -> tuple[object, ...]:
        variants = self._variants
        pipelines = [plan.pipeline for plan in variants.plans]
        return _recreate, (self.original, pipelines, variants.settings, variants.choose)

    def _counted_method(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        """Wrap a method of the original: log and count its calls."""

        @functools.wraps(method)
        def run(*args: object, **kwargs: object) -> object:
            if self.training:
                self.report.count(CallKey.TRAINING)
                return method(*args, **kwargs)
            self._variants.refresh()
            eager = self._reference.eager
            if hasattr(self, "generation_config"):  # may be replaced at any time
                eager.generation_config = self.generation_config  # type: ignore[assignment]
            if name == "generate" and (generator := self._generator) is not None:
                with inference():
                    return generator.generate(eager, *args, **kwargs)
            self._serving.count_fallback(CallKey.METHOD, f"{name} is not accelerated")
            with inference():
                output: object = getattr(eager, name)(*args, **kwargs)
            return output

        return run

    def _redirected_method(self, name: str, method: MethodType) -> Callable[..., object]:
        """Wrap a method of the original: its calls of ``self`` reach the optimized model.

        Where it gets tensors, its calls of parts of ``self`` are optimized, too. A method that
        returns the original returns the optimized model. One that computes without such calls runs
        the original's code: log and count it.
        """
        original = self._reference.original

        @functools.wraps(method)
        def run(*args: object, **kwargs: object) -> object:
            called = False

            @functools.wraps(original.forward)
            def call(*inputs: object, **named: object) -> object:
                nonlocal called
                called = True
                return self(*inputs, **named)

            if self.training or is_captured() or not tensors((args, kwargs)):
                output, parts = redirect(method, call, args, kwargs), None
            else:
                self._variants.refresh()
                model = self._reference.evaluated
                parts = self._parts.of(model)
                with inference():
                    output = redirect(getattr(model, name), call, args, kwargs, parts)
            if output is original or output is self._reference.eager:
                return self
            computed = not called and (args or kwargs) and _has_new_values(output, (args, kwargs))
            if computed and not self.training:
                self._count_method(name, parts)
            return output

        return run

    def _count_method(self, name: str, parts: CalledParts | None) -> None:
        """Count a call of a method that computed without calling ``self``."""
        fell_back = "" if parts is None else parts.fell_back
        if parts is not None and parts.called and not fell_back:
            self.report.count(CallKey.OPTIMIZED)
        else:
            reason = f": {fell_back}" if fell_back else ""
            self._serving.count_fallback(CallKey.METHOD, f"{name} is not accelerated{reason}")


def restore_generation(
    variants: Variants, kept: "KeptStepper", prompt: Inputs, logits: torch.Tensor
) -> OptimizedModel | None:
    """Make an optimized model whose ``generate`` is served by what an earlier process kept.

    Args:
        variants: for calls.
        kept: what was kept.
        prompt: inputs of the original, by name.
        logits: its logits for them, shape (batch, tokens, vocabulary).

    Returns:
        None if it can't be restored, or its logits are not those of the original within the limits
        of a build.
    """
    optimized = OptimizedModel(variants)
    generator = optimized._generator
    if generator is None or not generator.restore(variants.reference.eager, kept, prompt, logits):
        return None
    return optimized


def _make_generator(variants: Variants, serving: Serving) -> "Generator | None":
    """Return what serves ``generate``; None if no step does, or Transformers has other caches."""
    generates = any(step.backend.generates for plan in variants.plans for step in plan.steps)
    if not generates or "transformers" not in sys.modules or not host().meets(TRANSFORMERS):
        return None
    from cpuaccel.generation.generator import Generator

    return Generator(variants, serving)


def _has_new_values(output: object, inputs: tuple[object, object]) -> bool:
    """Whether an output has floating-point tensors that are neither inputs nor weights."""
    passed = {id(tensor) for tensor in tensors(inputs)}
    return any(
        tensor.is_floating_point()
        and id(tensor) not in passed
        and not isinstance(tensor, torch.nn.Parameter)
        for tensor in tensors(output)
    )


def _recreate(
    model: torch.nn.Module,
    pipelines: Sequence[Pipeline],
    settings: BuildSettings,
    choose: Choose | None,
) -> OptimizedModel:
    """Optimize a copied model like its original."""
    plans = [make_plan(model, pipeline) for pipeline in pipelines]
    return OptimizedModel(Variants(model, plans, settings, choose))
