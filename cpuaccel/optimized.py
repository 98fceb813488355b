"""The optimized model: called like the original, and never with a wrong answer."""

import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch

from cpuaccel.build import Builder
from cpuaccel.errors import ArtifactError, ForkError, SignatureError, StepError
from cpuaccel.expectation import same_form
from cpuaccel.fidelity import has_nonfinite
from cpuaccel.modes import followed, inference, outside_inference_mode
from cpuaccel.report import Report
from cpuaccel.signature import Inputs
from cpuaccel.structure import tensors
from cpuaccel.variant import Variant
from cpuaccel.weights import weights_state

logger = logging.getLogger("cpuaccel")

MAX_VARIANTS = 8
"""Ways of calling that get a variant of their own; the original answers any others."""

OPTIMIZED = "optimized"
"""The counter of calls that the optimized model answered."""

TRAINING = "original (training mode)"
"""The counter of calls in training mode."""

_PAST_FORWARD = re.compile(r"generate|generate_batch|generate_speech|get_\w+_features")
"""Methods by which Transformers models run otherwise than by being called."""

_CONSTANTS = (bool, int, float, str, type(None), torch.dtype)


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
        self._choose = choose
        self._recreate = recreate
        self._lock = threading.RLock()
        self._building = False
        self._process = os.getpid()
        self._forked = False
        self._variants: dict[object, Variant] = {}
        self._left_behind: dict[object, Variant] = {}
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
        self._refresh()
        try:
            inputs = self._builder.binder.bind(args, kwargs)
        except SignatureError:
            return self._builder.eager(*args, **kwargs)  # raises what the original raises
        with inference():
            variant = self._variant(inputs)
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

    def _refresh(self) -> None:
        """Make sure that what was built is this process's, and for the weights as they are."""
        if os.getpid() != self._process:
            self._move_in()
        if self._forked and torch.get_num_threads() > 1:
            raise ForkError(
                f"the optimized model was called in a fork of the process that built it, which "
                f"has none of the {torch.get_num_threads()} threads that torch would wait for, "
                "forever. Call torch.set_num_threads(1) there, and the original answers; to have "
                "an optimized one, start processes with the method 'spawn', or fork before "
                "optimizing"
            )
        if self._builder.weights.changed():
            with self._lock:
                if not self._building and self._builder.weights.changed():
                    logger.info("the original's weights were changed: building anew")
                    self._rebuild()

    def _move_in(self) -> None:
        """Leave behind what was built before this process was forked.

        Its engines' threads have not come along, and building anew may wait for them, too.
        """
        self._lock = threading.RLock()  # another thread may have held it
        self._building = False
        self._forked = self._forked or bool(self._variants)
        self._process = os.getpid()
        # Kept, for letting go of them may wait for their threads; OpenVINO does.
        self._left_behind, self._variants = self._variants, {}
        self._builder.reset()

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
        return list(dict.fromkeys(self._variants.values()))

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
            return self._variant(example_inputs)

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
            self._rebuild()  # the weights are about to change
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
        self._rebuild()
        return loaded

    def _apply(self, *args: object, **kwargs: object) -> Self:
        # Trainer, pipelines and sentence-transformers call `to` before each of their runs.
        original = self.original
        before = weights_state(original)
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if weights_state(original) != before:
            self._rebuild()
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

    def _rebuild(self) -> None:
        with self._lock:
            self._variants.clear()
            for builder in self._builders:
                builder.reset()

    def _variant(self, inputs: Inputs) -> Variant | str:
        """The variant for a call, built if need be; a reason where it can't have one."""
        builder = self._builder if self._choose is None else self._choose(inputs)
        key: list[tuple[object, ...]] = [(builder,)]
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                key.append((name, value.dtype, value.dim()))
            elif isinstance(value, _CONSTANTS):
                key.append((name, type(value), value))
            else:
                return f"input {name!r} is a {type(value).__name__}"
        found = self._variants.get(tuple(key))
        if found is not None and not found.frozen:
            return found
        shapes = tuple(v.shape for v in inputs.values() if isinstance(v, torch.Tensor))
        if found is not None:
            found = self._variants.get((tuple(key), shapes))
            if found is not None:
                return found
        return self._build(builder, tuple(key), shapes, inputs)

    def _build(
        self, builder: Builder, key: object, shapes: object, inputs: Inputs
    ) -> Variant | str:
        if self._forked:
            return "built before this process was forked"
        with self._lock:
            if self._building:  # by this thread: the model was called by a hook of its own
                return "called while it is being built"
            known = self._variants.get(key)
            if known is not None:  # another thread was quicker, or the shapes are frozen
                known = known if not known.frozen else self._variants.get((key, shapes))
            if known is not None:
                return known
            if len(self.variants) >= MAX_VARIANTS:
                return f"more than {MAX_VARIANTS} ways of calling"
            elsewhere = {t.device.type for t in self._held.parameters()} - {"cpu"}
            if elsewhere:
                return f"its weights are on {' and '.join(sorted(elsewhere))}"
            self._building = True
            try:
                variant = builder.build(inputs)
            finally:
                self._building = False
            # Where one variant has frozen its shapes, none is trusted with other shapes.
            if self._variants.setdefault(key, variant).frozen:
                self._variants[(key, shapes)] = variant
            self.report.variants.append(variant.report)
            return variant

    def _past_forward(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        """A method that runs the original, telling so when it is called."""

        @functools.wraps(method)
        def run(*args: object, **kwargs: object) -> object:
            if self.training:
                self.report.count(TRAINING)
                return method(*args, **kwargs)
            self._refresh()
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
