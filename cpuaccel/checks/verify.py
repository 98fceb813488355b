"""Comparing an optimized model with the original on all probes."""

import logging
from collections.abc import Callable

from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import BOTH, PADDINGS, Probe, Probes
from cpuaccel.errors import describe_error
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
    """Compare the outputs of the optimized model with the original's on all probes.

    Args:
        call: calls the optimized model.
        probes: inputs, and the original's outputs.
        tolerance: largest accepted relative difference of an output.
        original: see ``compare``.

    Raises:
        OutputMismatchError: the outputs differ on the example or with padding, or the optimized
            model raises on the example. Frozen sizes and refused paddings are only reported.
    """

    def compare_on(probe: Probe) -> list[Difference] | None:
        try:
            return compare(probe, call(probe.inputs), original)
        except Exception:  # engines raise various exceptions on inputs that they don't support
            logger.debug("raised on %s", probe.name, exc_info=True)
            return None

    def agrees(differences: list[Difference] | None) -> bool:
        return differences is not None and all(d.relative <= tolerance for d in differences)

    try:
        accepted = compare(probes.example, call(probes.example.inputs), original)
    except Exception as error:
        logger.debug("raised on the example", exc_info=True)
        raise OutputMismatchError(f"calling its model raised {describe_error(error)}") from error
    worst = max(accepted, key=lambda d: d.relative, default=None)
    if worst is not None and worst.relative > tolerance:
        raise OutputMismatchError(f"it changes the outputs: {worst} (tolerance {tolerance:g})")
    varied = {probe.name: compare_on(probe) for probe in probes.varied}
    frozen: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    if not all(map(agrees, varied.values())):
        varied = {probe.name: compare_on(probe) for probe in probes.single()}
        broken = {name: ds for name, ds in varied.items() if not agrees(ds)}
        refused = tuple(name for name, ds in broken.items() if name in PADDINGS and not ds)
        if wrong := broken.keys() & PADDINGS - {*refused}:
            named = sorted(wrong - {BOTH} or wrong)  # wrong with either implies wrong with both
            raise OutputMismatchError(f"it changes the outputs with {' and '.join(named)}")
        frozen = tuple(name for name in broken if name not in PADDINGS)
        if not broken:  # each axis alone is right, but not all at once
            frozen = ("batch", "length")
    accepted += [d for ds in varied.values() if ds is not None and agrees(ds) for d in ds]
    return Fidelity(tolerance, tuple(accepted), frozen, probes.unprobed, refused)
