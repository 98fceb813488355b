"""Serving one call: by a variant where its output is right, otherwise by the original."""

import logging
from operator import attrgetter

import torch

from cpuaccel.building.audit import Audit
from cpuaccel.building.stage import Output
from cpuaccel.building.variant import Variant
from cpuaccel.checks.compare import has_nonfinite
from cpuaccel.checks.output_form import same_form
from cpuaccel.checks.probes import same_values
from cpuaccel.errors import StepError
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import Inputs, cloned, counted_tensors, tensors_of
from cpuaccel.model.torch_modes import outside_inference_mode
from cpuaccel.report import CallKey, Fallback
from cpuaccel.variants import Route, Variants

logger = logging.getLogger("cpuaccel")

_version = attrgetter("_version")


class Serving:
    """Serves calls, counts what served them, and logs each reason for a fallback once."""

    def __init__(self, variants: Variants) -> None:
        self._variants = variants
        self._reference = variants.reference
        self._report = variants.report
        self._audit = Audit(variants.reference, variants.settings, variants.report)
        self._logged: set[str] = set()

    def serve(self, inputs: Inputs) -> object:
        """Return the model's output.

        Args:
            inputs: inputs by name, in ``forward``'s order.

        Raises:
            StepError: with ``strict=True``, the call needs the original.
        """
        route = self._variants.get(inputs)
        if isinstance(route, Fallback):
            if route.key is CallKey.EMPTY:  # nothing to accelerate: no fault, strict or not
                self._report.count(CallKey.EMPTY)
                return self._reference.serve(inputs)
            return self._fall_back(inputs, route)
        variant = route.variant
        if not variant.applied:
            # Logged when it was built; with strict only optional steps can be missing.
            self._report.count(CallKey.NOT_APPLIED)
            return self._reference.serve(inputs)
        if variant.off:
            return self._fall_back(inputs, Fallback(CallKey.SWITCHED_OFF, variant.off))
        if variant.domain.values and (excluded := variant.domain.excluded_by_values(inputs)):
            return self._fall_back(inputs, Fallback(CallKey.VALUES, excluded))
        if route.compare and variant.domain.learns:
            return self._serve_unproven(route, inputs)
        audited = route.compare or self._audit.is_due()
        kept = cloned(inputs) if audited or variant.writes else {}
        counted = counted_tensors(inputs)
        versions = list(map(_version, counted))
        try:
            output, flat = _call(variant, inputs)
        except Exception as error:
            logger.debug("the optimized model raised", exc_info=True)
            original = self._serve_original(inputs, kept)  # may raise the same
            reason = f"{type(error).__name__} in the optimized model"
            return self._record_fault(variant, CallKey.ERROR, reason, original)
        if variant.output_form is not None:
            mismatch = variant.output_form.mismatch(inputs, output, flat)
            if mismatch is not None:
                original = self._serve_original(inputs, kept)
                return self._check_form(variant, inputs, output, original, mismatch)
        if variant.finite and has_nonfinite(flat):
            original = self._serve_original(inputs, kept)
            if has_nonfinite(tensors(original)):
                self._report.count(CallKey.NAN_IN_ORIGINAL)
                return original
            reason = "NaN or infinity in the output"
            return self._record_fault(variant, CallKey.NAN, reason, original)
        if not variant.writes and list(map(_version, counted)) != versions:
            self._protect_inputs(variant)
        if audited:
            return self._serve_audited(route, inputs, kept, output)
        variant.record_success()
        self._report.count(CallKey.OPTIMIZED)
        return output

    def count_fallback(self, key: CallKey, reason: str) -> None:
        """Count a call that the original serves, and log its reason once.

        Raises:
            StepError: with ``strict=True``.
        """
        if self._variants.settings.strict:
            raise StepError(f"strict=True, but this call needs the original: {reason}")
        self._report.count(key, reason)
        if reason not in self._logged:
            self._logged.add(reason)
            logger.warning(
                "falling back to the original model: %s (logged once, counted in report.calls)",
                reason,
            )

    def _fall_back(self, inputs: Inputs, fallback: Fallback) -> object:
        output = self._reference.serve(inputs)  # may raise, strict or not
        self.count_fallback(fallback.key, fallback.reason)
        return output

    def _serve_unproven(self, route: Route, inputs: Inputs) -> object:
        """Compare an output for sizes that nothing is known of; if it differs, try another variant.

        An original that writes to its inputs must not run on them twice.
        """
        if not route.variant.writes:
            try:
                output = _call(route.variant, cloned(inputs)).value
                agrees = self._audit.compare(route.variant, inputs, output).mismatch is None
            except Exception:  # engines raise various exceptions on sizes that they don't support
                logger.debug("raised on sizes that had not occurred", exc_info=True)
                agrees = False
            if agrees:
                self._variants.believe(route)
                self._report.count(CallKey.OPTIMIZED)
                return output
        self._variants.disbelieve(route)
        self._variants.refresh()  # the original may have changed itself in this call
        return self.serve(inputs)

    def _serve_original(self, inputs: Inputs, kept: Inputs) -> object:
        """Call the original after the optimized model, which may have written to the inputs.

        Args:
            inputs: the caller's.
            kept: copies of them; empty if neither model writes to them.
        """
        _write(inputs, kept)
        return self._reference.serve(inputs)

    def _serve_audited(self, route: Route, inputs: Inputs, kept: Inputs, output: object) -> object:
        """Compare an output with the original's; where they differ, return the latter."""
        variant = route.variant
        result = self._audit.compare(variant, kept, output, inputs)
        if result.mismatch is None:
            self._variants.believe(route)
            variant.record_success()
            self._report.count(CallKey.OPTIMIZED)
            return output
        variant.off = f"switched off by an audit: {result.mismatch}"
        logger.warning(
            "the variant for %s returned a wrong output: %s (tolerance %g). The original serves "
            "these calls from now on. Report this to the authors of %s",
            variant.report.inputs,
            result.mismatch,
            variant.tolerance,
            self._report.pipeline,
        )
        _write(inputs, {**kept, **result.written})
        self.count_fallback(CallKey.AUDIT, str(result.mismatch))
        return result.original

    def _protect_inputs(self, variant: Variant) -> None:
        """Copy the inputs from now on, since the optimized model wrote to one of them."""
        variant.copied = frozenset(variant.signature.tensors)
        logger.warning(
            "%s wrote to the inputs of a call, which the original does not. It gets copies of "
            "them from now on. Report this to its author",
            self._report.pipeline,
        )

    def _check_form(
        self, variant: Variant, inputs: Inputs, output: object, original: object, mismatch: str
    ) -> object:
        """Compare an output of unexpected form with the original's, and return the latter."""
        if not same_form(output, original):
            reason = f"{mismatch} in the output"
            return self._record_fault(variant, CallKey.OUTPUT_FORM, reason, original)
        assert variant.output_form is not None
        variant.output_form = variant.output_form.corrected(inputs, original)
        self._report.count(CallKey.NEW_OUTPUT_SHAPE)
        return original

    def _record_fault(
        self, variant: Variant, key: CallKey, reason: str, original: object
    ) -> object:
        """Record a fault of the optimized model, and return the original's output."""
        self.count_fallback(key, reason)
        if variant.record_fault(reason):
            logger.warning(
                "the variant for %s is %s. The original serves these calls from now on; "
                "load_state_dict() or another optimize() rebuilds the variant",
                variant.report.inputs,
                variant.off,
            )
        return original


def _call(variant: Variant, inputs: Inputs) -> Output:
    if not torch.is_inference_mode_enabled():
        return variant.serve(inputs)
    with outside_inference_mode():
        return variant.serve(inputs)


def _write(inputs: Inputs, values: Inputs) -> None:
    """Give the caller's tensors these values, where they have others."""
    used = tensors_of(inputs)
    for name, tensor in tensors_of(values).items():
        if not same_values(used[name], tensor):
            used[name].copy_(tensor)
