"""Comparing calls with the original while they are served."""

import threading
import time
from dataclasses import dataclass

from cpuaccel.building.reference import Reference
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.variant import Variant
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import run_probe
from cpuaccel.model.signature import Inputs
from cpuaccel.report import Difference, Report


@dataclass(frozen=True)
class Audited:
    """The result of comparing one call.

    Attributes:
        original: the original's output.
        mismatch: the largest difference if it exceeds the tolerance, otherwise None.
    """

    original: object
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

    def compare(self, variant: Variant, inputs: Inputs, output: object) -> Audited:
        """Call the original, and compare its output.

        Args:
            variant: the variant that served the call.
            inputs: the inputs as they were before the call.
            output: its output.
        """
        begun = time.perf_counter()
        probe = run_probe(self._reference.serve, "audit", inputs)
        differences = compare(probe, output, self._reference.eager)
        worst = max(differences, key=lambda d: d.relative, default=None)
        self._report.record_audit(worst)
        with self._lock:
            self._seconds += time.perf_counter() - begun
        exceeds = worst is not None and worst.relative > variant.tolerance
        return Audited(probe.output, worst if exceeds else None)
