"""The optimized model: called like the original, and never with a wrong answer."""

import functools
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Self

import torch

from cpuaccel.build import Builder, Variant
from cpuaccel.errors import SignatureError, StepError
from cpuaccel.fidelity import has_nonfinite
from cpuaccel.precision import autocast_enabled
from cpuaccel.report import Report
from cpuaccel.signature import Inputs
from cpuaccel.structure import tensors
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
        self._variants: dict[object, Variant] = {}
        self._warned: set[str] = set()

        # Trainer and others read from forward's signature which inputs a model takes.
        self.forward = functools.partial(self._answer)
        functools.update_wrapper(self.forward, builder.original.forward)

    def _answer(self, *args: object, **kwargs: object) -> object:
        if self.training:
            self.report.calls[TRAINING] += 1
            return self.original(*args, **kwargs)
        try:
            inputs = self._builder.binder.bind(args, kwargs)
        except SignatureError:
            return self._builder.eager(*args, **kwargs)  # raises what the original raises
        with _inference():
            variant = self._variant(inputs)
            if isinstance(variant, str):
                return self._fall_back(inputs, variant)
            if not variant.applied:
                # Told when it was built; where strict, every step that is missing is optional.
                self.report.calls["original (no step was applied)"] += 1
                return self._builder.run_original(inputs)
            try:
                output = variant.answer(inputs)
                broken = variant.watched and has_nonfinite(tensors(output))
            except Exception as error:
                logger.debug("the optimized model raised", exc_info=True)
                return self._fall_back(inputs, f"{type(error).__name__} in the optimized model")
            if broken:
                return self._fall_back(inputs, "NaN or infinity in the optimized answer")
            self.report.calls[OPTIMIZED] += 1
            return output

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

    def prepare(self, example_inputs: Inputs) -> None:
        """Build the variant for calls like this one, if there is none yet.

        Args:
            example_inputs: inputs by name, in ``forward``'s order.

        Raises:
            StepError: with ``strict=True``, a step that was not applied, and why.
        """
        with torch.no_grad():
            self._variant(example_inputs)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the pipeline, the report, and the scripts, where there are any.

        A script needs no cpuaccel: ``torch.jit.load(path)(input_ids=..., attention_mask=...)``
        returns the output's tensors in order.

        Args:
            folder: is made if missing; files of the same names are replaced.

        Returns:
            The files written.

        Raises:
            ArtifactError: it can't be written, or nothing was built yet.
        """
        from cpuaccel.artifact import save

        plans = [builder.plan for builder in self._builders]
        return save(plans, self.report, self.variants, Path(folder))

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
        with self._lock:
            known = self._variants.get(key)
            if known is not None:  # another thread was quicker, or the shapes are frozen
                known = known if not known.frozen else self._variants.get((key, shapes))
            if known is not None:
                return known
            if len(self.variants) >= MAX_VARIANTS:
                return f"more than {MAX_VARIANTS} ways of calling"
            variant = builder.build(inputs)
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
                self.report.calls[TRAINING] += 1
                return method(*args, **kwargs)
            self._tell(f"{name} is not accelerated")
            eager = self._builder.eager
            if hasattr(self, "generation_config"):  # changed at any time, unlike the weights
                eager.generation_config = self.generation_config  # type: ignore[assignment]
            with _inference():
                answer: object = getattr(eager, name)(*args, **kwargs)
            return answer

        return run

    def _fall_back(self, inputs: Inputs, reason: str) -> object:
        self._tell(reason)
        return self._builder.run_original(inputs)

    def _tell(self, reason: str) -> None:
        """Say that the original answers a call, and why."""
        if self._builder.strict:
            raise StepError(f"strict=True was asked for, but the original had to answer: {reason}")
        self.report.calls[f"original ({reason})"] += 1
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning("the original answers: %s (told once, counted in the report)", reason)


_NOTHING = nullcontext()


@contextmanager
def _no_autocast() -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def _inference() -> AbstractContextManager[None]:
    """No gradients and no autocast, at no cost where the caller has it so already.

    The precision was chosen when the variant was built: the caller's autocast must not cast again
    inside of it.
    """
    if autocast_enabled():
        return _no_autocast()
    return torch.no_grad() if torch.is_grad_enabled() else _NOTHING
