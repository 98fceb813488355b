"""Comparing an optimized model with the original on all probes."""

import logging
from collections.abc import Callable

from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import BOTH, PADDINGS, Probe, Probes
from cpuaccel.model.signature import Inputs
from cpuaccel.report import Difference, Fidelity

logger = logging.getLogger("cpuaccel")


class OutputMismatchError(Exception):
    """The outputs of an optimized model differ from the original's. The message says where."""


def verify(
    call: Callable[[Inputs], object],
    probes: Probes,
    tolerance: float,
    original: Callable[..., object],
) -> Fidelity:
    """Compare the outputs on all probes.

    Args:
        call: calls the optimized model.
        probes: inputs, and the original's outputs.
        tolerance: largest accepted difference of an output, relative to its magnitude.
        original: maps samples to frames in audio models.

    Raises:
        OutputMismatchError: the example or the padding of a probe changes the outputs, or the
            optimized model raises on the example.
    """

    def differences(probe: Probe) -> list[Difference] | None:
        try:
            return compare(probe, call(probe.inputs), original)
        except Exception:  # engines raise various exceptions on inputs that they don't support
            logger.debug("raised on %s", probe.name, exc_info=True)
            return None

    def agrees(found: list[Difference] | None) -> bool:
        return found is not None and all(d.relative <= tolerance for d in found)

    try:
        found = compare(probes.example, call(probes.example.inputs), original)
    except Exception as error:
        raise OutputMismatchError(
            f"calling its model raised {type(error).__name__}: {error}"
        ) from error
    worst = max(found, key=lambda d: d.relative, default=None)
    if worst is not None and worst.relative > tolerance:
        raise OutputMismatchError(f"it changes the outputs: {worst} (tolerance {tolerance:g})")
    varied = {probe.name: differences(probe) for probe in probes.varied}
    frozen: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    if not all(map(agrees, varied.values())):
        varied = {probe.name: differences(probe) for probe in probes.single()}
        broken = {name: found for name, found in varied.items() if not agrees(found)}
        refused = tuple(n for n, differing in broken.items() if n in PADDINGS and not differing)
        if wrong := broken.keys() & PADDINGS - {*refused}:
            named = sorted(wrong - {BOTH} or wrong)  # both follows from either
            raise OutputMismatchError(f"it changes the outputs with {' and '.join(named)}")
        frozen = tuple(n for n in broken if n not in PADDINGS)
        if not broken:  # each axis alone is right, only all at once are not
            frozen = ("batch", "length")
    found += [d for ds in varied.values() if ds is not None and agrees(ds) for d in ds]
    return Fidelity(tolerance, tuple(found), frozen, probes.unprobed, refused)
