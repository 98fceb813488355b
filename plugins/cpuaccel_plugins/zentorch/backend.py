"""The backend ``zentorch``."""

from collections import Counter
from collections.abc import Callable, Mapping

import torch

from cpuaccel import Applied, BackendError, Context, Host, Verdict
from cpuaccel_plugins.inductor.toolchain import toolchain
from cpuaccel_plugins.inductor.torch_compile import TorchCompileBackend
from cpuaccel_plugins.zentorch.loading import compiler

USE_OTHERS = "Use inductor, onednn or openvino"
NAMESPACE = "zentorch::"


class ZenTorch(TorchCompileBackend):
    """Compiles the whole model with ``torch.compile`` and zentorch, its weights frozen.

    Without frozen weights, zentorch neither packs them nor fuses query, key and value.
    """

    name = "zentorch"
    summary = "AMD's zentorch: torch.compile with ZenDNN's linears and attention, on AMD processors"
    requires = (("torch>=2.13", "zentorch>=2.13"),)

    def check(self, host: Host) -> Verdict:
        """Decide from metadata and flags: importing zentorch fails with another torch."""
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
                f'Install "zentorch=={minor}.*"',
            )
        if "AMD" not in host.processor:
            return Verdict.no(
                f"zentorch needs an AMD processor, and this is {host.processor or 'another'}",
                USE_OTHERS,
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
    """Count zentorch's operators in one call, by name.

    zentorch's own counters stay 0 if a compiled graph is loaded from the cache.
    """
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
