"""The backend ``zentorch``."""

import functools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping

import torch

from cpuaccel import Applied, BackendError, Context, Host, Verdict
from cpuaccel_plugins.inductor.compilation import Compiler
from cpuaccel_plugins.inductor.torch_compile import TorchCompileBackend, toolchain

USE_OTHERS = "Use inductor, onednn or openvino"
NAMESPACE = "zentorch::"
WEIGHT_CACHE = "ZENDNNL_MATMUL_WEIGHT_CACHE"


class ZenTorch(TorchCompileBackend):
    """Compiles the whole model with ``torch.compile`` and zentorch, its weights frozen.

    Without frozen weights, zentorch neither packs them nor fuses query, key and value.
    """

    name = "zentorch"
    summary = "AMD's zentorch: torch.compile with ZenDNN's linears and attention, on AMD processors"
    requires = (("torch>=2.13", "zentorch>=2.13"),)

    def check(self, host: Host) -> Verdict:
        """Decide from metadata and flags: importing zentorch fails with another torch."""
        if "AMD" not in host.processor:  # first: otherwise the remedy is to install it
            return Verdict.no(
                f"zentorch needs an AMD processor, and this is {host.processor or 'another'}",
                USE_OTHERS,
            )
        if not (verdict := super().check(host)):
            return verdict
        own, torch_version = host.version("zentorch"), host.version("torch")
        assert own is not None
        assert torch_version is not None
        if own.release[:2] != torch_version.release[:2]:
            minor = f"{torch_version.major}.{torch_version.minor}"
            return Verdict.no(
                f"zentorch {own} works with torch {own.major}.{own.minor} only, and this "
                f"environment has torch {host.packages['torch']}",
                f'Run: pip install "zentorch=={minor}.*"',
            )
        if "avx512f" not in host.isa:
            return Verdict.no(
                "zentorch needs AVX512, which this processor does not have", USE_OTHERS
            )
        return toolchain()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Compile, run once, and count ZenDNN's operators."""
        signature = context.signature
        call = self.compile(model, signature, compiler(), counters={})
        example = signature.tensor_inputs
        executed = _executed(call, example)
        if not executed:
            raise BackendError(
                f"{type(model).__name__} executes no operator of zentorch", USE_OTHERS
            )
        call.evidence.update(sorted(executed.items()))
        return Applied(call, evidence=call.evidence)


def _executed(call: Callable[..., object], example: Mapping[str, torch.Tensor]) -> Counter[str]:
    """Count operators in one call: zentorch's counters stay 0 for a graph from the cache."""
    # The newer profiler writes to standard error.
    from torch.autograd.profiler_legacy import profile

    with profile() as profiled:  # type: ignore[no-untyped-call]
        call(**example)
    names = (event.name for event in profiled.function_events)
    return Counter(
        name.removeprefix(NAMESPACE).removeprefix("zentorch_")
        for name in names
        if name.startswith(NAMESPACE)
    )


@functools.cache
def compiler() -> Compiler:
    """Import zentorch, and return the compiler that it registers with Dynamo."""
    # The cache identifies weights by address: a new model may get those of a deleted one. zentorch
    # reads the setting once.
    if sys.modules.get("zentorch") is not None and os.environ.get(WEIGHT_CACHE) != "0":
        raise BackendError(
            "zentorch was imported with its weight cache enabled, which identifies weights by "
            "address and can mix up two models",
            f"Set {WEIGHT_CACHE}=0 before the process starts, or import zentorch after optimize",
        )
    os.environ[WEIGHT_CACHE] = "0"  # cpuaccel restores it after the step
    with warnings.catch_warnings(action="ignore"):  # torch's own deprecations
        import zentorch  # noqa: F401
        from torch._dynamo import lookup_backend

        return lookup_backend("zentorch")
