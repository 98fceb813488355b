"""What calls of the original show: probes, and what its outputs depend on besides the inputs."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from cpuaccel.checks.axis_groups import BATCH, AxisGroups
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Original, Probe, Probes, make_probes, run_probe
from cpuaccel.checks.size_guards import SMALLEST, SizeGuards, find_size_guards
from cpuaccel.checks.value_reads import ValueReads, as_captured
from cpuaccel.model.signature import Binder, Inputs, Signature, cloned

logger = logging.getLogger("cpuaccel")

STATE = "it keeps state between calls"

BOOKKEEPING = frozenset({"_output_capturing_hooks_installed"})
"""Flags that Transformers sets in the first call with ``output_hidden_states=True``."""

REPEATED = 1e-3
"""Largest relative difference between two calls of a model that is neither random nor stateful."""


@dataclass(frozen=True)
class Study:
    """What calls of the original have shown.

    Attributes:
        probes: inputs with the original's outputs.
        groups: the axes of the inputs.
        guards: what Python code decided by sizes; None if that could not be found out.
        reads: places where Python code reads values of inputs, which a captured graph freezes.
        unstable: why equal inputs lead to different outputs; empty if they don't.
    """

    probes: Probes
    groups: AxisGroups
    guards: SizeGuards | None
    reads: tuple[str, ...]
    unstable: str

    def with_written(
        self, paths: Sequence[str], before: torch.nn.Module, after: torch.nn.Module
    ) -> "Study":
        """Add the attributes that forward changed: a flag may lead later calls elsewhere.

        Args:
            paths: the changed attributes.
            before: the model without these changes.
            after: the model with them.
        """
        flags = [
            path
            for path in paths
            if path.rpartition(".")[2] not in BOOKKEEPING
            and _is_switched(_attribute(before, path), _attribute(after, path))
        ]
        if self.unstable == STATE and paths:
            return replace(self, unstable=f"{STATE} in {', '.join(paths)}")
        if flags and not self.unstable:
            return replace(self, unstable=f"forward changes {', '.join(flags)}")
        return self


def study(
    model: torch.nn.Module,
    original: Original,
    binder: Binder,
    signature: Signature,
    *,
    captured: bool,
    released: bool,
) -> Study:
    """Call the original on probes, and find out what its outputs depend on.

    Args:
        model: the original in eval mode.
        original: calls it.
        binder: binds its inputs.
        signature: the example inputs.
        captured: whether a step captures a graph; without one the Python code runs in each call.
        released: whether a step may take over the weights: the original can't be called then.
    """
    groups = AxisGroups.from_signature(signature)
    example = run_probe(original, "example", signature.inputs)
    guards = _find_guards(model, binder, groups, signature.inputs) if captured else None
    probes = make_probes(original, signature, guards, example)
    if released:
        single = probes.single()
        probes = replace(probes, single=lambda: single)
    again = probes.varied[0] if probes.varied else example
    reads = _find_reads(original, again)
    places = [*reads.places, *(reads.sized if guards is None else ())]
    return Study(
        probes,
        groups,
        guards,
        tuple(places) if captured else (),
        _find_instability(original, again, reads.output, model),
    )


def _find_guards(
    model: torch.nn.Module, binder: Binder, groups: AxisGroups, inputs: Inputs
) -> SizeGuards | None:
    """Run the model on symbolic sizes; None if they don't describe the example's own path."""
    guards = None
    if groups.example.get(BATCH, SMALLEST) < SMALLEST:  # one row may take a path of its own
        several = groups.resized(inputs, {BATCH: SMALLEST})
        guards = find_size_guards(model, binder, groups, several)
    guards = guards or find_size_guards(model, binder, groups, inputs)
    return None if guards is None or guards.violated(groups.example) else guards


def _find_reads(original: Original, probe: Probe) -> ValueReads:
    """Call the original as while it is captured, and find where it reads values of the inputs."""
    used = cloned(probe.inputs)
    reads = ValueReads(used)
    try:
        with as_captured(), reads:
            reads.output = original(used)
    except Exception:  # a tracer would fail there too
        logger.debug("the original raised while its operators were followed", exc_info=True)
    return reads


def _find_instability(
    original: Original, probe: Probe, output: object, eager: Callable[..., object]
) -> str:
    """Explain why another output for a probe's inputs differs, or return nothing if it doesn't.

    Args:
        original: calls the original.
        probe: inputs, and the original's output for them.
        output: another output of the original for them, of which the path may be another one.
        eager: see ``compare``.
    """

    def same(one: Probe, output: object) -> bool:
        try:
            return all(d.relative <= REPEATED for d in compare(one, output, eager))
        except Exception:  # tensors that can't be compared, such as sparse ones: no step is applied
            logger.debug("the original's outputs can't be compared", exc_info=True)
            return True

    def run() -> Probe:
        return run_probe(original, probe.name, probe.inputs)

    def run_seeded() -> Probe:
        torch.manual_seed(0)
        return run()

    if same(probe, output) or same(run(), run().output):
        return ""
    if same(run_seeded(), run_seeded().output):
        return "it draws random numbers"
    return STATE


def _is_switched(before: object, after: object) -> bool:
    """Whether a flag changed. One that had no value before is only filled in."""
    return isinstance(after, (bool, str)) and type(before) is type(after) and before != after


def _attribute(model: torch.nn.Module, path: str) -> object:
    try:
        return functools.reduce(getattr, path.split("."), model)
    except AttributeError:  # an element of a list, or a hook
        return None
