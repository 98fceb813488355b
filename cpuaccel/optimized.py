"""The optimized model: called like the original, never with a wrong output."""

import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Self

import torch

from cpuaccel.building.audit import Audit
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.variant import Variant
from cpuaccel.checks.compare import has_nonfinite
from cpuaccel.checks.output_form import same_form
from cpuaccel.errors import ArtifactError, SignatureError, StepError
from cpuaccel.model.output import tensors
from cpuaccel.model.redirected import can_redirect, redirect
from cpuaccel.model.signature import Inputs, cloned, input_versions
from cpuaccel.model.torch_modes import inference, is_captured, outside_inference_mode
from cpuaccel.model.weights import WatchedWeights
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.plan import make_plan
from cpuaccel.report import CallKey, Fallback, Report
from cpuaccel.variants import Choose, Route, Variants

logger = logging.getLogger("cpuaccel")

_OTHER_METHODS = re.compile(r"generate|generate_batch|generate_speech|get_\w+_features")
"""Methods other than ``forward`` by which Transformers models are run."""


class OptimizedModel(torch.nn.Module):
    """A model that was optimized by a pipeline, for inference.

    It is called like the original, returns the same output type without gradients, has the
    original's attributes and is an instance of its class (``isinstance``, ``__class__``). The
    original serves calls in training mode. Other methods run the original's code, in which
    ``self(...)`` calls the optimized model; those that compute without it are logged and counted.
    With ``strict=True`` a call that the optimized model can't serve raises ``StepError``.
    """

    def __init__(self, variants: Variants) -> None:
        """See ``cpuaccel.optimize``."""
        super().__init__()
        self._modules["original"] = variants.reference.original
        self.training = False
        self._variants = variants
        self._reference = variants.reference
        self._audit = Audit(variants.reference, variants.settings, variants.report)
        self._logged: set[str] = set()

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
            route = self._variants.get(inputs)
            if isinstance(route, Fallback):
                if route.key is CallKey.EMPTY:  # nothing to accelerate: no fault, strict or not
                    self.report.count(CallKey.EMPTY)
                    return reference.serve(inputs)
                return self._fall_back(inputs, route.key, route.reason)
            variant = route.variant
            if not variant.applied:
                # Logged when it was built; with strict only optional steps can be missing.
                self.report.count(CallKey.NOT_APPLIED)
                return reference.serve(inputs)
            if variant.off:
                return self._fall_back(inputs, CallKey.SWITCHED_OFF, variant.off)
            audited = cloned(inputs) if route.compare or self._audit.is_due() else None
            versions = input_versions(inputs)
            try:
                if torch.is_inference_mode_enabled():
                    with outside_inference_mode():
                        output, flat = variant.serve(inputs)
                else:
                    output, flat = variant.serve(inputs)
            except Exception as error:
                logger.debug("the optimized model raised", exc_info=True)
                original = reference.serve(inputs)  # may raise the same
                reason = f"{type(error).__name__} in the optimized model"
                return self._fault(variant, CallKey.ERROR, reason, original)
            if variant.output_form is not None:
                mismatch = variant.output_form.mismatch(inputs, output, flat)
                if mismatch is not None:
                    return self._check_form(variant, inputs, output, mismatch)
            if variant.finite and has_nonfinite(flat):
                original = reference.serve(inputs)
                if has_nonfinite(tensors(original)):
                    self.report.count(CallKey.NAN_IN_ORIGINAL)
                    return original
                reason = "NaN or infinity in the output"
                return self._fault(variant, CallKey.NAN, reason, original)
            if not variant.writes and input_versions(inputs) != versions:
                self._protect_inputs(variant)
            if audited is not None:
                return self._serve_audited(route, audited, output)
            variant.record_success()
            self.report.count(CallKey.OPTIMIZED)
            return output

    def _serve_audited(self, route: Route, inputs: Inputs, output: object) -> object:
        """Compare an output with the original's; where they differ, return the latter."""
        result = self._audit.compare(route.variant, inputs, output)
        if result.mismatch is None:
            self._variants.believe(route)
            route.variant.record_success()
            self.report.count(CallKey.OPTIMIZED)
            return output
        if route.variant.domain.learns:
            self._variants.disbelieve(route)
        else:
            route.variant.off = f"switched off by an audit: {result.mismatch}"
            logger.warning(
                "the variant for %s returned a wrong output: %s (tolerance %g). The original "
                "serves these calls from now on. Report this to the authors of %s",
                route.variant.report.inputs,
                result.mismatch,
                route.variant.tolerance,
                self.report.pipeline,
            )
        self._count_fallback(CallKey.AUDIT, str(result.mismatch))
        return result.original

    def _protect_inputs(self, variant: Variant) -> None:
        """Copy the inputs from now on, since the optimized model wrote to one of them."""
        variant.copied = frozenset(variant.signature.tensors)
        logger.warning(
            "%s wrote to the inputs of a call, which the original does not. It gets copies of "
            "them from now on. Report this to its author",
            self.report.pipeline,
        )

    def _check_form(
        self, variant: Variant, inputs: Inputs, output: object, mismatch: str
    ) -> object:
        """Compare an output of unexpected form with the original's, and return the latter."""
        original = self._reference.serve(inputs)
        if not same_form(output, original):
            reason = f"{mismatch} in the output"
            return self._fault(variant, CallKey.OUTPUT_FORM, reason, original)
        assert variant.output_form is not None
        variant.output_form = variant.output_form.corrected(inputs, original)
        self.report.count(CallKey.NEW_OUTPUT_SHAPE)
        return original

    def _fault(self, variant: Variant, key: CallKey, reason: str, original: object) -> object:
        """Record a fault of the optimized model, and return the original's output."""
        self._count_fallback(key, reason)
        if variant.record_fault(reason):
            logger.warning(
                "the variant for %s is %s. The original serves these calls from now on; "
                "load_state_dict() or another optimize() rebuilds the variant",
                variant.report.inputs,
                variant.off,
            )
        return original

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

    def refresh(self) -> None:
        """Take the original as it is now: the next call rebuilds the variants.

        Calls notice most changes themselves. They do not notice weights written through ``.data``
        or numpy, and changes of classes, functions, global variables, and objects that hold more
        than plain values.
        """
        self._variants.clear()

    def save(self, folder: str | Path) -> list[Path]:
        """Write a folder that ``cpuaccel.load`` reads: pipeline, weights, examples, checksums.

        Where the pipeline ends in TorchScript, the folder has the script, which runs without
        cpuaccel: ``torch.jit.load(path)(input_ids=..., attention_mask=...)`` returns the tensors
        of the output in order.

        Args:
            folder: created if missing. An existing artifact is replaced atomically after all files
                are written; if writing fails, it is unchanged.

        Returns:
            The files written, ``pipeline.toml`` first.

        Raises:
            ArtifactError: the folder can't be written or contains other files, nothing was built
                yet, or a weight is not a dense tensor.
        """
        from cpuaccel.artifact.writing import save

        if len(self._variants.plans) > 1:
            raise ArtifactError(
                f"can't save to {folder}: an artifact has one pipeline, but this model uses "
                f"several ({self.report.pipeline}). Keep the decision with "
                'optimize(..., lock="cpuaccel.lock"), or save a model for each pipeline'
            )
        self._reference.released.restore_original()
        return save(self._variants, Path(folder))

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
        if _OTHER_METHODS.fullmatch(name) and callable(value):
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
            self._count_fallback(CallKey.METHOD, f"{name} is not accelerated")
            eager = self._reference.eager
            if hasattr(self, "generation_config"):  # may be replaced at any time
                eager.generation_config = self.generation_config  # type: ignore[assignment]
            with inference():
                output: object = getattr(eager, name)(*args, **kwargs)
            return output

        return run

    def _redirected_method(self, name: str, method: MethodType) -> Callable[..., object]:
        """Wrap a method of the original: its calls of ``self`` reach the optimized model.

        A method that returns the original returns the optimized model. One that computes without
        calling ``self`` runs the original's code: log and count it.
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

            output = redirect(method, call, args, kwargs)
            if output is original:
                return self
            computed = not called and (args or kwargs) and _has_new_values(output, (args, kwargs))
            if computed and not self.training:
                self._count_fallback(CallKey.METHOD, f"{name} is not accelerated")
            return output

        return run

    def _fall_back(self, inputs: Inputs, key: CallKey, reason: str) -> object:
        output = self._reference.serve(inputs)  # may raise, strict or not
        self._count_fallback(key, reason)
        return output

    def _count_fallback(self, key: CallKey, reason: str) -> None:
        """Count a call that the original serves, and log its reason once.

        Raises:
            StepError: with ``strict=True``.
        """
        if self._variants.settings.strict:
            raise StepError(f"strict=True, but this call needs the original: {reason}")
        self.report.count(key, reason)
        if reason not in self._logged:
            self._logged.add(reason)
            logger.warning(
                "falling back to the original model: %s (logged once, counted in report.calls)",
                reason,
            )


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
