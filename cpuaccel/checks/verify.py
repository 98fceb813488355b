"""Comparing an optimized model with the original on all probes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cpuaccel.checks.compare import compare, written_differences
from cpuaccel.checks.probes import BOTH, PADDINGS, Probe, Probes, same_values
from cpuaccel.errors import describe_error
from cpuaccel.model.signature import Inputs, cloned, tensors_of
from cpuaccel.report import Difference, Fidelity

logger = logging.getLogger("cpuaccel")


class OutputMismatchError(Exception):
    """The outputs of an optimized model differ from the original's. The message says where."""


@dataclass(frozen=True)
class Verified:
    """The result of a comparison that found no difference which refuses the step.

    Attributes:
        fidelity: how close the outputs are, and which sizes are frozen.
        varied: axis groups that had other sizes on a probe whose outputs agreed.
        overwritten: inputs that the optimized model changes although the original does not.
    """

    fidelity: Fidelity
    varied: Mapping[str, frozenset[int]]
    overwritten: frozenset[str]


def verify(
    call: Callable[[Inputs], object],
    probes: Probes,
    tolerance: float,
    original: Callable[..., object],
    *,
    calibrated: bool = False,
) -> Verified:
    """Compare the outputs of the optimized model with the original's on all probes.

    Args:
        call: calls the optimized model.
        probes: inputs, and the original's outputs.
        tolerance: largest accepted relative difference of an output.
        original: see ``compare``.
        calibrated: whether the example's values had a part in making the optimized model. They
            prove nothing about others then, which are compared, too.

    Raises:
        OutputMismatchError: the outputs differ on the example, with padding or on other values, or
            the optimized model raises on the example. Frozen sizes and refused paddings are only
            reported.
    """
    overwritten: set[str] = set()

    def differences(probe: Probe) -> list[Difference]:
        inputs = cloned(probe.inputs)
        found = compare(probe, call(inputs), original, tolerance)
        given, used = tensors_of(probe.inputs), tensors_of(inputs)
        overwritten.update(
            name
            for name in given.keys() - probe.written.keys()
            if not same_values(given[name], used[name])
        )
        return [*found, *written_differences(probe, inputs, original)]

    def try_differences(probe: Probe) -> list[Difference] | None:
        try:
            return differences(probe)
        except Exception:  # engines raise various exceptions on inputs that they don't support
            logger.debug("raised on %s", probe.name, exc_info=True)
            return None

    def agrees(differences: list[Difference] | None) -> bool:
        return differences is not None and all(d.relative <= tolerance for d in differences)

    try:
        accepted = differences(probes.example)
    except Exception as error:
        logger.debug("raised on the example", exc_info=True)
        raise OutputMismatchError(f"calling its model raised {describe_error(error)}") from error
    worst = max(accepted, key=lambda d: d.relative, default=None)
    if worst is not None and worst.relative > tolerance:
        raise OutputMismatchError(f"it changes the outputs: {worst} (tolerance {tolerance:g})")
    if calibrated:
        others = [difference for probe in probes.shuffled() for difference in differences(probe)]
        worst = max(others, key=lambda d: d.relative, default=None)
        if worst is not None and worst.relative > tolerance:
            raise OutputMismatchError(
                f"calibrated with these samples it is wrong for other values: {worst} "
                f"(tolerance {tolerance:g})"
            )
        accepted += others
    compared = {probe: try_differences(probe) for probe in probes.varied}
    frozen: set[str] = set()
    refused: tuple[str, ...] = ()
    if not all(map(agrees, compared.values())):
        compared = {probe: try_differences(probe) for probe in probes.single()}
        broken = {probe: found for probe, found in compared.items() if not agrees(found)}
        paddings = {p.name: found for p, found in broken.items() if p.name in PADDINGS}
        refused = tuple(name for name, found in paddings.items() if not found)
        if wrong := paddings.keys() - {*refused}:
            named = sorted(wrong - {BOTH} or wrong)  # wrong with either implies wrong with both
            raise OutputMismatchError(f"it changes the outputs with {' and '.join(named)}")
        # A size of one may take another path: it then has its own variant.
        frozen.update(*(p.varied for p in broken if p.name not in PADDINGS and not p.has_one))
        if not broken:  # each alone is right, but not all at once
            frozen.update(*(probe.varied for probe in probes.varied))
    agreeing = [probe for probe, found in compared.items() if agrees(found)]
    varied: dict[str, set[int]] = {}
    for probe in agreeing:
        for group, size in probe.sizes.items():
            varied.setdefault(group, set()).add(size)
    accepted += [d for probe in agreeing for d in compared[probe] or ()]
    fidelity = Fidelity(tolerance, tuple(accepted), tuple(sorted(frozen)), probes.unprobed, refused)
    sizes = {group: frozenset(found) for group, found in varied.items() if group not in frozen}
    return Verified(fidelity, sizes, frozenset(overwritten))
