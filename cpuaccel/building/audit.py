"""Comparing calls with the original while they are served."""

import threading
import time
from dataclasses import dataclass

from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.variant import Variant
from cpuaccel.checks.compare import compare, written_differences
from cpuaccel.checks.probes import run_probe
from cpuaccel.model.copying import shared_copy
from cpuaccel.model.signature import Inputs
from cpuaccel.report import Difference, Report


@dataclass(frozen=True)
class Audited:
    """The result of comparing one call.

    Attributes:
        original: the original's output.
        written: the inputs that the original changed, as they were after its call.
        mismatch: the largest difference if it exceeds the tolerance, otherwise None.
    """

    original: object
    written: Inputs
    mismatch: Difference | None


class Audit:
    """Decides which calls are compared, and compares them."""

    def __init__(self, reference: Reference, settings: BuildSettings, report: Report) -> None:
        self._reference = reference
        self._report = report
        self._share = settings.audit_share
        self._begun = time.perf_counter()
        self._seconds = 0.0
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Whether the next call may be compared without exceeding the share of the time."""
        if not self._share:
            return False
        return self._seconds < self._share * (time.perf_counter() - self._begun)

    def compare(
        self, variant: Variant, inputs: Inputs, output: object, used: Inputs | None = None
    ) -> Audited:
        """Call the original, and compare its output.

        Args:
            variant: the variant that served the call.
            inputs: the inputs as they were before the call.
            output: its output.
            used: the inputs as they are after the call, which may have changed them.
        """
        begun = time.perf_counter()
        self._renew_copy()
        probe = run_probe(self._reference.serve, "audit", inputs)
        differences = compare(probe, output, self._reference.eager, variant.tolerance)
        if used is not None:
            differences += written_differences(probe, used, self._reference.eager)
        worst = max(differences, key=lambda d: d.relative, default=None)
        self._report.record_audit(worst)
        with self._lock:
            self._seconds += time.perf_counter() - begun
        exceeds = worst is not None and worst.relative > variant.tolerance
        return Audited(probe.output, probe.written, worst if exceeds else None)

    def _renew_copy(self) -> None:
        """Copy an original in training mode again: its copy lacks changes that nothing noticed."""
        reference = self._reference
        original = reference.original
        if reference.eager is not original and any(m.training for m in original.modules()):
            reference.released.restore_original()
            reference.eager = shared_copy(original)
