"""The backend ``int8``, and which processors it needs."""

from dataclasses import replace
from typing import ClassVar

import torch

from cpuaccel import (
    Applied,
    Backend,
    BackendError,
    Context,
    Form,
    Host,
    Kept,
    Stepper,
    Unload,
    Verdict,
)
from cpuaccel_plugins.int8.options import Int8Options

INT8_PRODUCTS = frozenset({"avx512_vnni", "amx_int8"})
"""Processor flags, any one of which makes oneDNN's 8 bit linear fast."""


class Int8(Backend[Int8Options]):
    """Exports the model and computes its linears in 8 bits; the rest is as in ``onednn``.

    Weights have a scale for each output channel; activations have one for a whole tensor, computed
    in each call.
    """

    name = "int8"
    summary = "linears in 8 bits on oneDNN, quantized in each call; all else as in onednn"
    takes = Form.MODULE
    gives = Form.COMPILED
    generates = True
    needs_tensors = True
    requires = (("torch>=2.8",),)
    tolerance = 0.15
    Options: ClassVar[type[Int8Options]] = Int8Options

    def check(self, host: Host) -> Verdict:
        """Require a processor with vector instructions for 8 bit products."""
        if not host.isa & INT8_PRODUCTS:
            return Verdict.no(
                f"the processor ({host.processor}) has neither AVX512-VNNI nor AMX-INT8, without "
                "which 8 bit products are inexact and no faster than float32",
                "Use onednn, or a processor with one of them (generate works on any processor)",
            )
        return super().check(host)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Capture, quantize, fuse, pack and compile."""
        from cpuaccel_plugins.int8.build import build  # fails with an older torch

        return build(model, context, self.options)

    def restore(self, model: torch.nn.Module, context: Context, kept: Kept) -> Applied:
        """Compile the graph again on the packed weights."""
        from cpuaccel_plugins.int8.arithmetic import VOCABULARY, require_exact_sums
        from cpuaccel_plugins.onednn.kept import VOCABULARY as ONEDNN_VOCABULARY
        from cpuaccel_plugins.onednn.kept import restore

        require_exact_sums()
        return restore(kept, ONEDNN_VOCABULARY + VOCABULARY)

    def check_generation(self, host: Host) -> Verdict:
        """Any processor: those without VNNI multiply activations in 16 bits."""
        return host.meets(*self.requires)

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        """Compute few rows with kernels that read weights in 8 or 4 bits, the head's too."""
        # These need transformers or a newer torch.
        from cpuaccel_plugins.decoding.linear import FewRowsLinear
        from cpuaccel_plugins.decoding.model import make_stepper
        from cpuaccel_plugins.decoding.packed import Int4Linear, Int8Linear, is_finite
        from cpuaccel_plugins.int8.selection import matches, require_matches

        options = self.options
        if options.max_error is not None:
            raise BackendError(
                f"max_error={options.max_error:g} is about calls of forward, not about generate",
                "Use float_names, and measure the quality on text",
            )
        names: list[tuple[str]] = []

        def choose(name: str, linear: torch.nn.Linear) -> type[FewRowsLinear]:
            names.append((name,))
            if matches((name,), options.float_names) or not is_finite(linear.weight):
                return FewRowsLinear
            if matches((name,), options.int4_names):
                return Int4Linear
            return Int8Linear

        made = make_stepper(model, choose, unload)
        require_matches(options.float_names, names)
        require_matches(options.int4_names, names, "int4_names")
        return replace(made, in_4_bits=bool(options.int4_names))

    def restore_stepper(self, model: torch.nn.Module, host: Host, kept: Kept) -> Stepper:
        """Take the packed weights, and what was found out about layers."""
        from cpuaccel_plugins.decoding.model import restore_stepper

        made = restore_stepper(model, kept)
        return replace(made, in_4_bits=bool(self.options.int4_names))
