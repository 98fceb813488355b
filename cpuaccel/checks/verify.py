"""Holding what was built against the original, on the example and on variations of it."""

import logging
from collections.abc import Callable

from cpuaccel.building.stage import Answer
from cpuaccel.checks.difference import Difference
from cpuaccel.checks.probes import BOTH, PADDINGS, Probe, Probes, compare
from cpuaccel.report import Fidelity

logger = logging.getLogger("cpuaccel")


def verify(
    answer: Answer, probes: Probes, tolerance: float, original: Callable[..., object]
) -> Fidelity | str:
    """Compare the answers on all probes.

    Args:
        answer: calls what was built.
        probes: inputs, and what the original answers to them.
        tolerance: largest difference of an output, relative to its magnitude.
        original: knows, for audio, which output frames are real.

    Returns:
        How close they are; a sentence, where they are not the original's.
    """

    def differences(probe: Probe) -> list[Difference] | None:
        try:
            return compare(probe, answer(probe.inputs), original)
        except Exception:  # engines raise what they like on inputs that they don't take
            logger.debug("raised on %s", probe.name, exc_info=True)
            return None

    def agrees(found: list[Difference] | None) -> bool:
        return found is not None and all(d.relative <= tolerance for d in found)

    try:
        found = compare(probes.example, answer(probes.example.inputs), original)
    except Exception as error:
        return f"calling what it gave raised {type(error).__name__}: {error}"
    worst = max(found, key=lambda d: d.relative, default=None)
    if worst is not None and worst.relative > tolerance:
        return (
            f"it changes the answers: {worst.output} differs by {worst.absolute:.3g}, "
            f"{worst.relative:.3g} of its magnitude (tolerance {tolerance:g})"
        )
    varied = {probe.name: differences(probe) for probe in probes.varied}
    frozen: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    if not all(map(agrees, varied.values())):
        varied = {probe.name: differences(probe) for probe in probes.single()}
        broken = {name: found for name, found in varied.items() if not agrees(found)}
        refused = tuple(n for n, differing in broken.items() if n in PADDINGS and not differing)
        if wrong := broken.keys() & PADDINGS - {*refused}:
            named = sorted(wrong - {BOTH} or wrong)  # both follows from either
            return f"it changes the answers where there is {' and '.join(named)}"
        frozen = tuple(n for n in broken if n not in PADDINGS)
        if not broken:  # each alone is right, only all at once is not
            frozen = ("batch", "length")
    found += [d for ds in varied.values() if ds is not None and agrees(ds) for d in ds]
    return Fidelity(tolerance, tuple(found), frozen, probes.unprobed, refused)
