"""The backend, and what it needs of a processor."""

from typing import ClassVar

import torch

from cpuaccel import Applied, Backend, Context, Form, Host, Verdict
from cpuaccel_plugins.int8.options import Int8Options

INT8_PRODUCTS = frozenset({"avx512_vnni", "amx_int8"})
"""Processor flags of which any one means that oneDNN's 8 bit linear is a fast one."""


class Int8(Backend[Int8Options]):
    """Exports the model, and computes its linears in 8 bits; the rest is as in ``onednn``.

    Weights have a scale for each output channel; activations get one for all of a tensor, anew in
    every call.
    """

    name = "int8"
    summary = "linears in 8 bits on oneDNN, quantized in each call; all else as onednn does it"
    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    requires = (("torch>=2.8",),)
    tolerance = 0.15
    Options: ClassVar[type[Int8Options]] = Int8Options

    def check(self, host: Host) -> Verdict:
        """Ask for a processor that multiplies 8 bits in its vector units."""
        if not host.isa & INT8_PRODUCTS:
            return Verdict.no(
                f"the processor ({host.processor}) has neither AVX512-VNNI nor AMX-INT8, without "
                "which 8 bit products are no faster than float32's, and inexact",
                "Use onednn, or a processor that has one of them",
            )
        return super().check(host)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Capture, bring to 8 bits, fuse, pack and compile."""
        from cpuaccel_plugins.int8.build import build  # torch.export is imported only here

        return build(model, context, self.options)
