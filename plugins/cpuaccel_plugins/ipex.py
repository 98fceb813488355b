"""Backend ``ipex``: Intel Extension for PyTorch's operator fusion and weight prepacking."""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

import cpuaccel
from cpuaccel import Applied, Backend, BackendError, Context, Form, Host, Verdict
from cpuaccel_plugins.common.eager_attention import with_eager_attention
from cpuaccel_plugins.common.engine_errors import leave_out

PACKAGE = "intel-extension-for-pytorch"
MINORS = ("2.8", "2.7", "2.6")
"""Minors of torch that IPEX is used with here, each with its own minor of IPEX."""

LAST_MINOR = MINORS[0]
"""IPEX is archived: this is the last torch minor that it was released for."""

INSTEAD = (
    f"Make an environment with torch=={LAST_MINOR}.0 and {PACKAGE}=={LAST_MINOR}.0, or stay here "
    "with jit or bettertransformer,jit, which need no IPEX"
)

WITHOUT_IPEX = "Use jit or bettertransformer, which need no IPEX"


class IpexOptions(cpuaccel.Options):
    """Options of ``ipex``, as ``ipex.optimize`` names them.

    Attributes:
        dtype: precision of the weights; None for the pipeline's.
        auto_kernel_selection: oneDNN instead of MKL for float32, without which IPEX fuses
            neither linear+gelu nor linear+add.
        eager_attention: rebuild a Transformers model with eager attention, the only one whose
            multi-head attention IPEX fuses. Off, because on the processor measured SDPA was
            faster: see docs/ipex_fusions.md.
        weights_prepack: bring weights into oneDNN's blocked layout.
        level: ``O1`` for all optimizations, ``O0`` for none but those asked for.
        conv_bn_folding: fold batch norm into the convolution before it; works only on models that
            torch.fx can trace, hence off, as in Transformers' Trainer.
        linear_bn_folding: fold batch norm into the linear before it; likewise.
    """

    dtype: Literal["float32", "bfloat16"] | None = None
    auto_kernel_selection: bool = True
    eager_attention: bool = False
    weights_prepack: bool = True
    level: Literal["O0", "O1"] = "O1"
    conv_bn_folding: bool = False
    linear_bn_folding: bool = False


class Ipex(Backend[IpexOptions]):
    """Replaces modules with IPEX's; a following ``jit`` lets its graph fusions fire."""

    name = "ipex"
    summary = "Intel Extension for PyTorch: prepacked weights, and fusions where jit follows"
    takes = Form.MODULE
    gives = Form.MODULE
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "its layers leave IPEX nothing of the encoder to replace or fuse, and "
        "under IPEX's autocast for bfloat16 they don't reach their own fused kernel"
    }
    requires = tuple((f"{PACKAGE}=={minor}.*", f"torch=={minor}.*") for minor in MINORS)
    casts = True
    Options = IpexOptions

    def check(self, host: Host) -> Verdict:
        """Decide from metadata and flags: importing a mismatched IPEX ends the process."""
        torch_version, own = host.version("torch"), host.version(PACKAGE)
        if host.machine not in {"x86_64", "AMD64"}:
            return Verdict.no(
                f"IPEX is built for x86-64, and this machine is {host.machine}", WITHOUT_IPEX
            )
        if torch_version is None or own is None:
            return Verdict.no(
                f"{PACKAGE} is not installed; its last release serves torch {LAST_MINOR}, and "
                f"this environment has torch {host.packages.get('torch', 'not installed')}",
                INSTEAD,
            )
        if own.release[:2] != torch_version.release[:2]:
            return Verdict.no(
                f"{PACKAGE} {own} works with torch {own.major}.{own.minor} only, and "
                f"this environment has torch {host.packages['torch']}",
                INSTEAD,
            )
        if "avx2" not in host.isa:
            return Verdict.no(
                "IPEX needs AVX2, which this processor does not have",
                WITHOUT_IPEX,
            )
        if self.options.dtype == "bfloat16" and not (precision := host.bf16()):
            return precision
        return super().check(host)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Run ``ipex.optimize`` and count what it replaced."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # IPEX warns of its own dependencies' deprecations
            import intel_extension_for_pytorch as ipex

            dtype = (
                getattr(torch, self.options.dtype)
                if self.options.dtype is not None
                else context.dtype or torch.float32
            )
            given = with_eager_attention(model) if self.options.eager_attention else model
            # Asked for a copy, it brings the convolutions of the original to another layout, too.
            optimized = ipex.optimize(
                given if context.inplace else copy.deepcopy(given),
                dtype=dtype,
                inplace=True,
                level=self.options.level,
                auto_kernel_selection=self.options.auto_kernel_selection,
                weights_prepack=self.options.weights_prepack,
                conv_bn_folding=self.options.conv_bn_folding,
                linear_bn_folding=self.options.linear_bn_folding,
            )
        replaced = Counter(
            type(module).__name__.removeprefix("_IPEX")
            for module in optimized.modules()
            if type(module).__module__.startswith("intel_extension_for_pytorch")
        )
        if not replaced:
            raise BackendError(
                f"ipex.optimize replaced no module of {type(model).__name__}",
                leave_out(self.name),
            )
        return Applied(
            optimized,
            evidence={
                **{f"{name}_modules": count for name, count in sorted(replaced.items())},
                "graph_fusions": "only where jit follows, and counted by it",
            },
            autocast=torch.bfloat16 if dtype is torch.bfloat16 else None,
        )


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[Ipex]]:
    """Offer ``ipex``."""
    return [Ipex]
