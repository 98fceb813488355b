"""A cache of variants by the way of calling, valid for one process and one state of the model."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch

from cpuaccel.building.builder import Builder
from cpuaccel.building.global_settings import restored_random_state
from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.variant import Variant
from cpuaccel.checks.compare import compare
from cpuaccel.checks.dependence import REPEATED
from cpuaccel.checks.output_form import same_form
from cpuaccel.checks.probes import run_probe
from cpuaccel.errors import ForkError
from cpuaccel.model.signature import (
    Inputs,
    cloned,
    is_dense,
    is_plain,
    numbers_as_tensors,
    unsupported_input,
)
from cpuaccel.planning.plan import Plan
from cpuaccel.report import CallKey, Fallback, Report
from cpuaccel.varying_numbers import VaryingNumbers, number_class

logger = logging.getLogger("cpuaccel")

MAX_VARIANTS = 8
"""Ways of calling that get their own variant; the original serves all others."""

MAX_ROUTES = 4096
"""Shapes of calls whose variants are remembered."""

_forks = 0
"""Number of forks between the process that imported this module and this one: cheaper to read in
each call than the number of the process."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)

Choose = Callable[[Inputs], int]
"""Returns the index of the plan that serves a call."""


class Route(NamedTuple):
    """Which variant serves the calls of one shape.

    Attributes:
        variant: the variant.
        key: names, dtypes, shapes and Python values of the call.
        compare: whether the original must confirm the output of this call.
    """

    variant: Variant
    key: tuple[object, ...]
    compare: bool


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
        self._by_way: dict[tuple[object, ...], list[Variant]] = {}
        self._routes: dict[tuple[object, ...], Route] = {}
        self._numbers = VaryingNumbers()
        self._lock = threading.RLock()
        self._building = False
        self._forks = _forks
        self._forked = False
        self._of_parent: list[Variant] = []
        self.resets = 0  # how often the original has changed

    @property
    def built(self) -> list[Variant]:
        """The variants built so far."""
        return [variant for variants in self._by_way.values() for variant in variants]

    @property
    def forked(self) -> bool:
        """Whether variants were built in a process of which this one is a fork."""
        return self._forked

    def refresh(self) -> None:
        """Discard the variants if the original changed or the process was forked.

        Raises:
            ForkError: any call in this process would deadlock.
        """
        if self._forks != _forks:
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
            self._by_way.clear()
            self._routes.clear()
            self._numbers = VaryingNumbers()
            self._reset_builders()

    def add(self, variant: Variant) -> None:
        """Serve calls by a variant that was built by an earlier process, with the first plan."""
        inputs = variant.signature.inputs
        with self._lock:
            self._by_way.setdefault((0, *_way(inputs)), []).append(variant)
            self._is_new_size(variant, inputs)  # compared with the original's stored output
            self.report.variants.append(variant.report)

    def get(self, inputs: Inputs) -> Route | Fallback:
        """Return the variant for a call, building it if needed.

        Raises:
            StepError: see ``Builder.build``.
        """
        key: list[object] = [0 if self.choose is None else self.choose(inputs)]
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor) and is_dense(value):
                key += (name, value.dtype, value.shape)
            elif is_plain(value):
                key += (name, type(value), value)
            else:
                return Fallback(CallKey.INPUT_TYPE, unsupported_input(inputs))
        route = self._routes.get(tuple(key))
        return self._find(tuple(key), inputs) if route is None else route

    def believe(self, route: Route) -> None:
        """Serve calls like the one that was just compared without comparing again."""
        self._routes[route.key] = route._replace(compare=False)

    def disbelieve(self, route: Route) -> None:
        """Build a variant of its own for calls like the one whose outputs just differed."""
        with self._lock:
            route.variant.rejected.add(route.key)
            self._routes.pop(route.key, None)

    def _find(self, key: tuple[object, ...], inputs: Inputs) -> Route | Fallback:
        """Find or build the variant for sizes that have not occurred yet."""
        if self._forked:
            return Fallback(CallKey.FORK, "built before the process was forked")
        if any(isinstance(v, torch.Tensor) and v.numel() == 0 for v in inputs.values()):
            return Fallback(CallKey.EMPTY, "an input has no elements")
        plan = cast(int, key[0])
        with self._lock:
            if self._building:  # by this thread: a hook of the model called it
                return Fallback(CallKey.BUILDING, "called while it is being built")
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            # With freeze_values a graph would keep the first value of a number.
            varying = () if self.settings.freeze_values else self._numbers.names(plan, inputs)
            route = self._find_route(plan, key, inputs, varying)
            if route is None:
                self._numbers.refuse(plan, inputs, varying)
                route = self._find_route(plan, key, inputs, ())
            assert route is not None
            if isinstance(route, Route):
                self._routes[key] = route
            return route

    def _find_route(
        self, plan: int, key: tuple[object, ...], inputs: Inputs, numbers: tuple[str, ...]
    ) -> Route | Fallback | None:
        """Find or build the variant that gets some Python numbers as tensors.

        Returns:
            None if no step can be applied where ``numbers`` are tensors.
        """
        given = numbers_as_tensors(inputs, numbers) if numbers else inputs
        known = self._by_way.setdefault((plan, *_way(given)), [])
        route = self._choose_variant(key, known, given)
        if route is not None:
            return route
        if numbers and not self._takes_tensors(inputs, given):
            return None
        built = self._build(self.builders[plan], known, given, numbers)
        if isinstance(built, Fallback):
            return built
        if numbers and not built.applied:
            known.remove(built)
            self.report.variants.remove(built.report)
            return None
        return Route(built, key, compare=bool(numbers))

    def _takes_tensors(self, inputs: Inputs, given: Inputs) -> bool:
        """Whether the original returns the same where Python numbers are tensors."""
        reference = self.reference
        try:
            with restored_random_state(), reference.restored_buffers():
                probe = run_probe(reference.run, "numbers", inputs)
                output = reference.run(cloned(given))
                reference.weights.ignore_written_buffers()
        except Exception:  # the original needs Python numbers
            logger.debug("the original raised on numbers as tensors", exc_info=True)
            return False
        return same_form(output, probe.output) and all(
            d.relative <= REPEATED for d in compare(probe, output, reference.eager)
        )

    def _choose_variant(
        self, key: tuple[object, ...], known: list[Variant], inputs: Inputs
    ) -> Route | None:
        for variant in known:
            if variant.domain.excluded(inputs) is None:
                return Route(variant, key, self._is_new_size(variant, inputs))
        for variant in known:
            if variant.applied and key not in variant.rejected and variant.domain.may_learn(inputs):
                return Route(variant, key, compare=True)
        return None

    def _is_new_size(self, variant: Variant, inputs: Inputs) -> bool:
        """Whether a call is the first of its size class (powers of two), to be audited."""
        if self.settings.audit is False or not variant.applied:
            return False
        shapes = (v.shape for v in inputs.values() if isinstance(v, torch.Tensor))
        size_class = tuple(size.bit_length() for shape in shapes for size in shape)
        numbers = (cast(torch.Tensor, inputs[name]).item() for name in variant.numbers)
        size_class += tuple(part for number in numbers for part in number_class(number))
        new = size_class not in variant.audited
        variant.audited.add(size_class)
        return new

    def _build(
        self, builder: Builder, known: list[Variant], inputs: Inputs, numbers: tuple[str, ...]
    ) -> Variant | Fallback:
        if len(self.built) >= MAX_VARIANTS:
            return Fallback(CallKey.VARIANT_LIMIT, f"more than {MAX_VARIANTS} ways of calling")
        devices = {t.device.type for t in self.reference.original.parameters()} - {"cpu"}
        if devices:
            return Fallback(CallKey.DEVICE, f"its weights are on {' and '.join(sorted(devices))}")
        self._building = True
        try:
            variant = builder.build(inputs)
        finally:
            self._building = False
        if builder.unstable:
            for other in self.built:
                other.off = (
                    f"another call showed that the model can't be captured: {builder.unstable}"
                )
        variant.numbers = numbers
        known.append(variant)
        self._is_new_size(variant, inputs)  # compared with the original when it was built
        self.report.variants.append(variant.report)
        return variant

    def _reset_after_fork(self) -> None:
        """Stop using the parent's variants.

        The threads of their engines do not exist in this process; rebuilding may wait for them.
        """
        self._lock = threading.RLock()  # another thread may have held it
        self._building = False
        self._forked = self._forked or bool(self._by_way)
        self._forks = _forks
        # Keep them alive: destroying them may wait for their threads, as in OpenVINO.
        self._of_parent += self.built
        self._by_way, self._routes = {}, {}
        self._reset_builders()

    def _reset_builders(self) -> None:
        self.resets += 1
        self.reference.reset()
        for builder in self.builders:
            builder.reset()


def _way(inputs: Inputs) -> tuple[object, ...]:
    """A way of calling: names with dtypes and ranks, or Python values."""
    parts: list[object] = []
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            parts += (name, value.dtype, value.dim())
        else:
            parts += (name, type(value), value)
    return tuple(parts)
