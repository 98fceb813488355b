"""The backend ``int8``, and which processors it needs."""

from typing import ClassVar

import torch

from cpuaccel import Applied, Backend, Context, Form, Host, Stepper, Verdict
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
    needs_tensors = True
    requires = (("torch>=2.8",),)
    tolerance = 0.15
    generates = True
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

    def check_generation(self, host: Host) -> Verdict:
        """Any processor: weights are in 8 bits, but products are in float32."""
        return host.meets(*self.requires)

    def stepper(self, model: torch.nn.Module, host: Host) -> Stepper:
        """Compute few rows with kernels that read weights in 8 bits, the head's too."""
        from cpuaccel_plugins.int8.stepper import stepper  # needs transformers

        return stepper(model, self.options)
