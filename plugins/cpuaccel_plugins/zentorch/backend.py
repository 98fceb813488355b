"""What ``zentorch`` asks for, and applying it."""

from collections import Counter
from collections.abc import Callable, Mapping

import torch

from cpuaccel import Applied, BackendError, Context, Host, Verdict
from cpuaccel_plugins.inductor.toolchain import toolchain
from cpuaccel_plugins.inductor.torch_compile import TorchCompileBackend
from cpuaccel_plugins.zentorch.loading import compiler

WITHOUT = "Leave zentorch out, and try inductor, onednn or openvino"
NAMESPACE = "zentorch::"


class ZenTorch(TorchCompileBackend):
    """Compiles the whole model with ``torch.compile`` and zentorch, its weights frozen.

    Unfrozen, zentorch neither packs weights nor fuses query, key and value.
    """

    name = "zentorch"
    summary = "AMD's zentorch: torch.compile with ZenDNN's linears and attention, on AMD processors"
    requires = (("torch>=2.13", "zentorch>=2.13"),)

    def check(self, host: Host) -> Verdict:
        """Decide from metadata and flags: imported on another torch, it raises or is half there."""
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
                f"zentorch is made for AMD's processors, and this is {host.processor or 'another'}",
                WITHOUT,
            )
        if "avx512f" not in host.isa:
            return Verdict.no(
                "zentorch optimizes only with AVX512, which this processor does not have", WITHOUT
            )
        return toolchain()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Compile, run once, and see that ZenDNN's operators are what was executed."""
        signature = context.signature
        call = self.compile(model, signature, compiler(), counters={})
        example = signature.tensor_inputs
        executed = _executed(call, example)
        if not executed:
            raise BackendError(
                f"none of zentorch's operators was executed in {type(model).__name__}", WITHOUT
            )
        call.evidence.update(sorted(executed.items()))
        return Applied(call, evidence=call.evidence)


def _executed(call: Callable[..., object], example: Mapping[str, torch.Tensor]) -> Counter[str]:
    """Count zentorch's operators in one call, by name.

    Its counters tell what its passes matched, and nothing where a compiled graph was loaded.
    """
    # The newer profiler writes to standard error when it starts.
    from torch.autograd.profiler_legacy import profile

    with profile() as profiled:  # type: ignore[no-untyped-call]
        call(**example)
    names = (event.name for event in profiled.function_events)
    return Counter(
        name.removeprefix(NAMESPACE).removeprefix("zentorch_")
        for name in names
        if name.startswith(NAMESPACE)
    )
