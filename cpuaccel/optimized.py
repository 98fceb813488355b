"""The optimized model: called like the original, and never with a wrong answer."""

import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch

from cpuaccel.building.builder import Builder
from cpuaccel.building.variant import Variant
from cpuaccel.checks.output_form import same_form
from cpuaccel.checks.probes import has_nonfinite
from cpuaccel.errors import ArtifactError, SignatureError, StepError
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import Inputs
from cpuaccel.model.torch_modes import followed, inference, outside_inference_mode
from cpuaccel.model.weights import weights_state
from cpuaccel.report import Report
from cpuaccel.variants import Variants

logger = logging.getLogger("cpuaccel")

OPTIMIZED = "optimized"
"""The counter of calls that the optimized model answered."""

TRAINING = "original (training mode)"
"""The counter of calls in training mode."""

_PAST_FORWARD = re.compile(r"generate|generate_batch|generate_speech|get_\w+_features")
"""Methods by which Transformers models run otherwise than by being called."""


class OptimizedModel(torch.nn.Module):
    """A model that runs through a pipeline, for inference.

    It has the original's attributes, passes for one of its class (``isinstance``, ``__class__``),
    is called like it, and returns what it returns, without gradients. In training mode the
    original runs, and so it does in methods other than ``forward``, of which ``generate`` and
    ``get_..._features`` are warned of and counted. With ``strict=True`` a call that the optimized
    model can't answer raises ``StepError``.

    Attributes:
        original: the caller's model.
        report: what was done, and what answered the calls since.
    """

    def __init__(
        self,
        builder: Builder,
        report: Report,
        recreate: Callable[[torch.nn.Module], "OptimizedModel"],
        *,
        others: Sequence[Builder] = (),
        choose: Callable[[Inputs], Builder] | None = None,
    ) -> None:
        """Made by ``cpuaccel.optimize``.

        Args:
            builder: builds the variants.
            report: where they are noted.
            recreate: makes the like of another model, for copies.
            others: build variants by other plans, for some of the calls.
            choose: which builder's variants answer a call; by default ``builder``'s answer all.
        """
        super().__init__()
        self._modules["original"] = builder.original
        self.report = report
        self.training = False
        self._builder = builder
        self._builders = (builder, *others)
        self._variants = Variants(self._builders, report, choose)
        self._recreate = recreate
        self._warned: set[str] = set()

        # Trainer and others read from forward's signature which inputs a model takes.
        self.forward = functools.partial(self._answer)
        functools.update_wrapper(self.forward, builder.original.forward)

    def _answer(self, *args: object, **kwargs: object) -> object:
        if self.training:
            self.report.count(TRAINING)
            return self.original(*args, **kwargs)
        if followed():
            self._builder.released.restore_original()
            return self._builder.eager(*args, **kwargs)
        self._variants.refresh()
        try:
            inputs = self._builder.binder.bind(args, kwargs)
        except SignatureError:
            return self._builder.eager(*args, **kwargs)  # raises what the original raises
        with inference():
            variant = self._variants.for_call(inputs)
            if isinstance(variant, str):
                return self._fall_back(inputs, variant)
            if not variant.applied:
                # Told when it was built; where strict, every step that is missing is optional.
                self.report.count("original (no step was applied)")
                return self._builder.run_original(inputs)
            if variant.health.off:
                return self._fall_back(inputs, variant.health.off)
            try:
                if torch.is_inference_mode_enabled():
                    with outside_inference_mode():
                        output = variant.answer(inputs)
                else:
                    output = variant.answer(inputs)
            except Exception as error:
                logger.debug("the optimized model raised", exc_info=True)
                original = self._builder.run_original(inputs)  # may well raise the same
                return self._fault(
                    variant, f"{type(error).__name__} in the optimized model", original
                )
            found = tensors(output)
            if variant.expected is not None:
                unlike = variant.expected.doubt(inputs, output, found)
                if unlike:
                    return self._settle_form(variant, inputs, output, unlike)
            if variant.watched and has_nonfinite(found):
                original = self._builder.run_original(inputs)
                if has_nonfinite(tensors(original)):
                    self.report.count("original (NaN or infinity in its own answer, too)")
                    return original
                return self._fault(variant, "NaN or infinity in the optimized answer", original)
            variant.health.sound()
            self.report.count(OPTIMIZED)
            return output

    def _settle_form(self, variant: Variant, inputs: Inputs, output: object, unlike: str) -> object:
        """Let the original judge an answer that looks otherwise than its answers so far."""
        original = self._builder.run_original(inputs)
        if not same_form(output, original):
            return self._fault(variant, f"{unlike} in the optimized answer", original)
        assert variant.expected is not None
        variant.expected = variant.expected.corrected(inputs, original)
        self.report.count("original (the first answer of such a shape)")
        return original

    def _fault(self, variant: Variant, reason: str, original: object) -> object:
        """Count a fault of the optimized model in a call that the original could answer."""
        self._tell(reason)
        if variant.health.fault(reason):
            logger.warning(
                "the optimized model for %s is %s. The original answers all such calls from here "
                "on; load_state_dict() or another optimize() builds anew",
                variant.report.inputs,
                variant.health.off,
            )
        return original

    @property
    def original(self) -> torch.nn.Module:
        """The caller's model; weights that it gave up (``keep_original=False``) come back."""
        self._builder.released.restore_original()
        return self._held

    @property
    def _held(self) -> torch.nn.Module:
        """The caller's model as it is now."""
        held = self._modules["original"]
        assert held is not None
        return held

    @property
    def variants(self) -> list[Variant]:
        """What was built so far, one for each way of calling."""
        return self._variants.built

    def prepare(self, example_inputs: Inputs) -> Variant | str:
        """Build the variant for calls like this one, if there is none yet.

        Args:
            example_inputs: inputs by name, in ``forward``'s order.

        Returns:
            The variant; a reason where such calls can't have one.

        Raises:
            StepError: with ``strict=True``, a step that was not applied, and why.
        """
        with torch.no_grad():
            return self._variants.for_call(example_inputs)

    def save(self, folder: str | Path) -> list[Path]:
        """Write a folder that ``cpuaccel.load`` reads: recipe, weights, examples, hashes of all.

        Where the pipeline ends in TorchScript, the script is among it and needs no cpuaccel:
        ``torch.jit.load(path)(input_ids=..., attention_mask=...)`` returns the output's tensors in
        order.

        Args:
            folder: is made if missing. An artifact that is there is replaced as a whole, when
                everything is written; if that fails it stays as it was.

        Returns:
            The files written, ``pipeline.toml`` first.

        Raises:
            ArtifactError: the folder can't be written or holds other files, or nothing was built
                yet, or a weight is no dense tensor.
        """
        from cpuaccel.artifact.writing import save

        if len(self._builders) > 1:
            shared = ", ".join(str(builder.plan.pipeline) for builder in self._builders)
            raise ArtifactError(
                f"saving to {folder} was asked for, but the calls are shared by several pipelines "
                f"({shared}), and a folder holds one. Keep the decision with "
                "optimize(..., lock='cpuaccel.lock'), or save each by itself"
            )
        self._builder.released.restore_original()
        return save(self._builder, self.report, self.variants, Path(folder))

    def train(self, mode: bool = True) -> Self:
        """Switch between training, where the original runs, and evaluation."""
        super().train(mode)
        if mode:
            self._variants.forget()  # the weights are about to change
        return self

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
        """The original's."""
        return self.original.state_dict(*args, **kwargs)  # type: ignore[no-any-return,call-overload]

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> object:
        """Load the original's weights, and build anew on the next call."""
        loaded = self.original.load_state_dict(
            state_dict,
            strict,
            **({"assign": True} if assign else {}),  # from torch 2.1 on
        )
        self._variants.forget()
        return loaded

    def _apply(self, *args: object, **kwargs: object) -> Self:
        # Trainer, pipelines and sentence-transformers call `to` before each of their runs.
        original = self.original
        before = weights_state(original)
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if weights_state(original) != before:
            self._variants.forget()
        return self

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # Pipelines and Trainer judge a model by its class: the name, the labels that forward takes.
        return type(self._held)

    def _get_name(self) -> str:
        return OptimizedModel.__name__

    def __getattr__(self, name: str) -> object:  # type: ignore[override]
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "original" not in self.__dict__.get("_modules", {}):  # half built
                raise
        value = getattr(self._held, name)
        if _PAST_FORWARD.fullmatch(name) and callable(value):
            return self._past_forward(name, value)
        return value

    def __reduce__(self) -> tuple[object, ...]:
        return self._recreate, (self.original,)

    def _past_forward(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        """A method that runs the original, telling so when it is called."""

        @functools.wraps(method)
        def run(*args: object, **kwargs: object) -> object:
            if self.training:
                self.report.count(TRAINING)
                return method(*args, **kwargs)
            self._variants.refresh()
            self._tell(f"{name} is not accelerated")
            eager = self._builder.eager
            if hasattr(self, "generation_config"):  # changed at any time, unlike the weights
                eager.generation_config = self.generation_config  # type: ignore[assignment]
            with inference():
                answer: object = getattr(eager, name)(*args, **kwargs)
            return answer

        return run

    def _fall_back(self, inputs: Inputs, reason: str) -> object:
        answer = self._builder.run_original(inputs)  # may well raise, strict or not
        self._tell(reason)
        return answer

    def _tell(self, reason: str) -> None:
        """Say that the original answers a call, and why."""
        if self._builder.strict:
            raise StepError(f"strict=True was asked for, but the original had to answer: {reason}")
        self.report.count(f"original ({reason})")
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning("the original answers: %s (told once, counted in the report)", reason)
