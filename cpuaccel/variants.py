"""What is built for the ways of calling a model: in this process, for its weights as they are."""

import logging
import os
import threading
from collections.abc import Callable, Sequence

import torch

from cpuaccel.building.builder import Builder
from cpuaccel.building.variant import Variant
from cpuaccel.errors import ForkError
from cpuaccel.model.signature import Inputs
from cpuaccel.report import Report

logger = logging.getLogger("cpuaccel")

MAX_VARIANTS = 8
"""Ways of calling that get a variant of their own; the original answers any others."""

_CONSTANTS = (bool, int, float, str, type(None), torch.dtype)


class Variants:
    """A variant for each way of calling, built when it is first called for."""

    def __init__(
        self,
        builders: Sequence[Builder],
        report: Report,
        choose: Callable[[Inputs], Builder] | None,
    ) -> None:
        """Build nothing yet.

        Args:
            builders: of one model, by one plan each.
            report: where variants are noted.
            choose: which builder's variants answer a call; None if the first one's answer all.
        """
        self._builders = builders
        self._report = report
        self._choose = choose
        self._built: dict[object, Variant] = {}
        self._lock = threading.RLock()
        self._building = False
        self._process = os.getpid()
        self._forked = False
        self._left_behind: dict[object, Variant] = {}

    @property
    def built(self) -> list[Variant]:
        """What was built so far."""
        return list(dict.fromkeys(self._built.values()))

    def refresh(self) -> None:
        """Make sure that what was built is this process's, and for the weights as they are.

        Raises:
            ForkError: in this process any call would wait forever.
        """
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
        weights = self._builders[0].weights
        if weights.changed():
            with self._lock:
                if not self._building and weights.changed():
                    logger.info("the original's weights were changed: building anew")
                    self.forget()

    def forget(self) -> None:
        """Build anew from here on: the original's weights are no longer what they were."""
        with self._lock:
            self._built.clear()
            for builder in self._builders:
                builder.reset()

    def for_call(self, inputs: Inputs) -> Variant | str:
        """The variant for a call, built if need be; a reason where it can't have one."""
        builder = self._builders[0] if self._choose is None else self._choose(inputs)
        key: list[tuple[object, ...]] = [(builder,)]
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                key.append((name, value.dtype, value.dim()))
            elif isinstance(value, _CONSTANTS):
                key.append((name, type(value), value))
            else:
                return f"input {name!r} is a {type(value).__name__}"
        found = self._built.get(tuple(key))
        if found is not None and not found.frozen:
            return found
        shapes = tuple(v.shape for v in inputs.values() if isinstance(v, torch.Tensor))
        if found is not None:
            found = self._built.get((tuple(key), shapes))
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
            known = self._built.get(key)
            if known is not None:  # another thread was quicker, or the shapes are frozen
                known = known if not known.frozen else self._built.get((key, shapes))
            if known is not None:
                return known
            if len(self.built) >= MAX_VARIANTS:
                return f"more than {MAX_VARIANTS} ways of calling"
            elsewhere = {t.device.type for t in builder.original.parameters()} - {"cpu"}
            if elsewhere:
                return f"its weights are on {' and '.join(sorted(elsewhere))}"
            self._building = True
            try:
                variant = builder.build(inputs)
            finally:
                self._building = False
            # Where one variant has frozen its shapes, none is trusted with other shapes.
            if self._built.setdefault(key, variant).frozen:
                self._built[(key, shapes)] = variant
            self._report.variants.append(variant.report)
            return variant

    def _move_in(self) -> None:
        """Leave behind what was built before this process was forked.

        Its engines' threads have not come along, and building anew may wait for them, too.
        """
        self._lock = threading.RLock()  # another thread may have held it
        self._building = False
        self._forked = self._forked or bool(self._built)
        self._process = os.getpid()
        # Kept, for letting go of them may wait for their threads; OpenVINO does.
        self._left_behind, self._built = self._built, {}
        self._builders[0].reset()
