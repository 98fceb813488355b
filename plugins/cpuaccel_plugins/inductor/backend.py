"""The backend ``inductor``."""

import warnings

import torch

from cpuaccel import Applied, Context, Host, Verdict
from cpuaccel_plugins.inductor.torch_compile import TorchCompileBackend, toolchain

COUNTERS = {
    "mkldnn_linear_weight_pack_matcher_count": "packed_linears",
    "mkldnn_conv_weight_pack_matcher_count": "onednn_convolutions",
    "mkldnn_unary_fusion_matcher_count": "fused_activations",
    "mkldnn_conv_binary_unary_fusion_matcher_count": "fused_additions",
}
"""Inductor's counters of matched patterns, and their names in the evidence."""


class Inductor(TorchCompileBackend):
    """Compiles the whole model with ``torch.compile`` and Inductor, its weights frozen.

    In float32, linears use oneDNN's packed and fused kernels only with both frozen weights and
    dynamic shapes: with static shapes they use MKL, and without freezing they are not packed.
    """

    name = "inductor"
    summary = "torch.compile: C++ kernels for this model, with oneDNN's packed linears"
    requires = (("torch>=2.13",),)  # the first with isolate_recompiles

    def check(self, host: Host) -> Verdict:
        """Require a C++ compiler and Python's headers."""
        return super().check(host) and toolchain()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Compile, and check that the weights are frozen."""
        with warnings.catch_warnings(action="ignore"):  # torch's own deprecations
            from torch._inductor.compile_fx import compile_fx

        call = self.compile(model, context.signature, compile_fx, COUNTERS)
        return Applied(call, evidence=call.evidence)
