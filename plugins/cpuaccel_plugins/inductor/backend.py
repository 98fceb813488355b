"""What ``inductor`` asks for, and applying it."""

import warnings

import torch

from cpuaccel import Applied, Context, Host, Verdict
from cpuaccel_plugins.inductor.toolchain import toolchain
from cpuaccel_plugins.inductor.torch_compile import TorchCompileBackend

COUNTERS = {
    "mkldnn_linear_weight_pack_matcher_count": "packed_linears",
    "mkldnn_conv_weight_pack_matcher_count": "onednn_convolutions",
    "mkldnn_unary_fusion_matcher_count": "fused_activations",
    "mkldnn_conv_binary_unary_fusion_matcher_count": "fused_additions",
}
"""Inductor's counters of what its passes matched, as they are told here."""


class Inductor(TorchCompileBackend):
    """Compiles the whole model with ``torch.compile`` and Inductor, its weights frozen.

    Frozen weights and dynamic shapes together are the fast way in float32: only then are linears
    oneDNN's, packed and fused; with static shapes they are MKL's, and without freezing unpacked.
    """

    name = "inductor"
    summary = "torch.compile: C++ kernels made for this model, with oneDNN's packed linears"
    requires = (("torch>=2.13",),)  # the first whose compiled entries are this call's own

    def check(self, host: Host) -> Verdict:
        """Look for the compiler and the headers that Inductor's kernels are built with."""
        return super().check(host) and toolchain()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Compile, and see that it was compiled and its weights frozen."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own deprecations
            from torch._inductor.compile_fx import compile_fx

        call = self.compile(model, context.signature, compile_fx, COUNTERS)
        return Applied(call, evidence=call.evidence)
