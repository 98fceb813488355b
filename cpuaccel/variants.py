"""A cache of variants by the way of calling, valid for one process and one state of the model."""

import logging
import os
import threading
from collections.abc import Callable, Sequence

import torch

from cpuaccel.building.builder import Builder
from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.variant import Variant
from cpuaccel.errors import ForkError
from cpuaccel.model.signature import Inputs
from cpuaccel.planning.plan import Plan
from cpuaccel.report import CallKey, Fallback, Report

logger = logging.getLogger("cpuaccel")

MAX_VARIANTS = 8
"""Ways of calling that get their own variant; the original serves all others."""

Choose = Callable[[Inputs], int]
"""Returns the index of the plan that serves a call."""

_CONSTANTS = (bool, int, float, str, type(None), torch.dtype)


class Variants:
    """A variant for each way of calling, built at the first such call.

    ``choose`` returns which of several plans serves a call; None where there is one plan.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        plans: Sequence[Plan],
        settings: BuildSettings,
        choose: Choose | None = None,
    ) -> None:
        """Check the plans; build nothing yet.

        Raises:
            StepError: with ``settings.strict``, this host does not support a step.
        """
        for plan in plans:
            plan.warn_or_raise(strict=settings.strict)
        self.plans = tuple(plans)
        self.settings = settings
        self.choose = choose
        self.reference = Reference(model, inplace=settings.inplace)
        self.builders = tuple(Builder(plan, self.reference, settings) for plan in plans)
        self.report = Report(
            " | ".join(str(plan.pipeline) for plan in plans),
            " | ".join(dict.fromkeys(plan.dtype_name for plan in plans)),
            tuple(p.skipped for plan in plans for p in plan.steps if not p.verdict),
        )
        self._variants: dict[object, Variant] = {}
        self._lock = threading.RLock()
        self._building = False
        self._process = os.getpid()
        self._forked = False
        self._of_parent: dict[object, Variant] = {}

    @property
    def built(self) -> list[Variant]:
        """The variants built so far."""
        return list(dict.fromkeys(self._variants.values()))

    def refresh(self) -> None:
        """Discard the variants if the original changed or the process was forked.

        Raises:
            ForkError: any call in this process would deadlock.
        """
        if os.getpid() != self._process:
            self._reset_after_fork()
        if self._forked and torch.get_num_threads() > 1:
            raise ForkError(
                "the optimized model was called after fork: torch would deadlock, waiting for "
                f"{torch.get_num_threads()} threads that exist only in the parent process. Use the "
                'start method "spawn" or fork before optimizing; or call '
                "torch.set_num_threads(1), and the original serves the calls"
            )
        if self.reference.changes():
            with self._lock:
                if not self._building and (changes := self.reference.changes()):
                    logger.info("the original has changed (%s): rebuilding", changes)
                    self.clear()

    def clear(self) -> None:
        """Discard all variants, since the original has changed."""
        with self._lock:
            self._variants.clear()
            self._reset_builders()

    def get(self, inputs: Inputs) -> Variant | Fallback:
        """Return the variant for a call, building it if needed.

        Raises:
            StepError: see ``Builder.build``.
        """
        index = 0 if self.choose is None else self.choose(inputs)
        way: list[tuple[object, ...]] = [(index,)]
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor):
                way.append((name, value.dtype, value.dim()))
            elif isinstance(value, _CONSTANTS):
                way.append((name, type(value), value))
            else:
                return Fallback(CallKey.INPUT_TYPE, f"input {name!r} is a {type(value).__name__}")
        key = tuple(way)
        variant = self._variants.get(key)
        if variant is not None and not variant.frozen:
            return variant
        shapes = tuple(v.shape for v in inputs.values() if isinstance(v, torch.Tensor))
        if variant is not None:
            variant = self._variants.get((key, shapes))
            if variant is not None:
                return variant
        return self._build(self.builders[index], key, shapes, inputs)

    def _build(
        self, builder: Builder, key: object, shapes: object, inputs: Inputs
    ) -> Variant | Fallback:
        if self._forked:
            return Fallback(CallKey.FORK, "built before the process was forked")
        with self._lock:
            if self._building:  # by this thread: a hook of the model called it
                return Fallback(CallKey.BUILDING, "called while it is being built")
            known = self._variants.get(key)
            if known is not None:  # another thread built it, or its shapes are frozen
                known = known if not known.frozen else self._variants.get((key, shapes))
            if known is not None:
                return known
            if len(self.built) >= MAX_VARIANTS:
                return Fallback(CallKey.VARIANT_LIMIT, f"more than {MAX_VARIANTS} ways of calling")
            devices = {t.device.type for t in self.reference.original.parameters()} - {"cpu"}
            if devices:
                where = " and ".join(sorted(devices))
                return Fallback(CallKey.DEVICE, f"its weights are on {where}")
            self._building = True
            try:
                variant = builder.build(inputs)
            finally:
                self._building = False
            # Once one variant has frozen shapes, none serves other shapes.
            if self._variants.setdefault(key, variant).frozen:
                self._variants[(key, shapes)] = variant
            self.report.variants.append(variant.report)
            return variant

    def _reset_after_fork(self) -> None:
        """Stop using the parent's variants.

        The threads of their engines do not exist in this process; rebuilding may wait for them.
        """
        self._lock = threading.RLock()  # another thread may have held it
        self._building = False
        self._forked = self._forked or bool(self._variants)
        self._process = os.getpid()
        # Keep them alive: destroying them may wait for their threads, as in OpenVINO.
        self._of_parent, self._variants = self._variants, {}
        self._reset_builders()

    def _reset_builders(self) -> None:
        self.reference.reset()
        for builder in self.builders:
            builder.reset()
