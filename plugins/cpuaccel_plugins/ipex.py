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
from cpuaccel_plugins.common.ipex_switches import MODULE

PACKAGE = "intel-extension-for-pytorch"
MINORS = ("2.8", "2.7", "2.6")
"""Supported minor versions of torch, each with the same minor version of IPEX."""

LAST_MINOR = MINORS[0]
"""The last torch minor that IPEX was released for; IPEX is archived."""

INSTEAD = (
    f"Create an environment with torch=={LAST_MINOR}.0 and {PACKAGE}=={LAST_MINOR}.0, or use jit "
    "or bettertransformer,jit, which need no IPEX"
)

WITHOUT_IPEX = "Use jit or bettertransformer, which need no IPEX"


class IpexOptions(cpuaccel.Options):
    """Options of ``ipex``, most of them arguments of ``ipex.optimize``.

    Attributes:
        dtype: precision of the weights; None for the pipeline's.
        auto_kernel_selection: use oneDNN instead of MKL for float32. IPEX fuses linear+gelu and
            linear+add only with oneDNN.
        eager_attention: rebuild a Transformers model with eager attention, the only one that IPEX
            fuses. False by default, because SDPA was measured faster: see docs/ipex_fusions.md.
        weights_prepack: convert weights to oneDNN's blocked layout.
        level: ``O1`` for all optimizations, ``O0`` for none except those set by other options.
        conv_bn_folding: fold batch norm into the convolution before it; needs a model that
            torch.fx can trace.
        linear_bn_folding: fold batch norm into the linear before it; needs a model that torch.fx
            can trace.
    """

    dtype: Literal["float32", "bfloat16"] | None = None
    auto_kernel_selection: bool = True
    eager_attention: bool = False
    weights_prepack: bool = True
    level: Literal["O0", "O1"] = "O1"
    conv_bn_folding: bool = False
    linear_bn_folding: bool = False


class Ipex(Backend[IpexOptions]):
    """Replaces modules by IPEX's; its graph fusions need a following ``jit``."""

    name = "ipex"
    summary = "Intel Extension for PyTorch: prepacked weights, and fusions with a following jit"
    takes = Form.MODULE
    gives = Form.MODULE
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "IPEX can't replace or fuse the layers of its encoder, and under "
        "IPEX's autocast for bfloat16 they don't use their own fused kernel"
    }
    requires = tuple((f"{PACKAGE}=={minor}.*", f"torch=={minor}.*") for minor in MINORS)
    casts = True
    Options = IpexOptions

    def check(self, host: Host) -> Verdict:
        """Decide from metadata and flags: importing a mismatched IPEX terminates the process."""
        torch_version, own = host.version("torch"), host.version(PACKAGE)
        if host.machine not in {"x86_64", "AMD64"}:
            return Verdict.no(
                f"IPEX needs an x86-64 processor, and this machine is {host.machine}", WITHOUT_IPEX
            )
        if torch_version is None or own is None:
            return Verdict.no(
                f"{PACKAGE} is not installed; its last release is for torch {LAST_MINOR}, and this "
                f"environment has torch {host.packages.get('torch', 'not installed')}",
                INSTEAD,
            )
        if own.release[:2] != torch_version.release[:2]:
            return Verdict.no(
                f"{PACKAGE} {own} works with torch {own.major}.{own.minor} only, and "
                f"this environment has torch {host.packages['torch']}",
                INSTEAD,
            )
        if "avx2" not in host.isa:
            return Verdict.no("IPEX needs AVX2, which this processor does not have", WITHOUT_IPEX)
        if self.options.dtype == "bfloat16" and not (precision := host.bf16()):
            return precision
        return super().check(host)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Run ``ipex.optimize`` and count what it replaced."""
        options = self.options
        with warnings.catch_warnings(action="ignore"):  # deprecations in IPEX's dependencies
            import intel_extension_for_pytorch as ipex

            dtype = context.dtype or torch.float32
            if options.dtype is not None:
                dtype = getattr(torch, options.dtype)
            source = with_eager_attention(model) if options.eager_attention else model
            # With inplace=False, ipex.optimize changes the layout of the original's convolutions.
            optimized = ipex.optimize(
                source if context.inplace else copy.deepcopy(source),
                dtype=dtype,
                inplace=True,
                **options.model_dump(exclude={"dtype", "eager_attention"}),
            )
        replaced = Counter(
            type(module).__name__.removeprefix("_IPEX")
            for module in optimized.modules()
            if type(module).__module__.startswith(MODULE)
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
                "graph_fusions": "only with a following jit, which counts them",
            },
            autocast=torch.bfloat16 if dtype is torch.bfloat16 else None,
        )


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[Ipex]]:
    return [Ipex]
