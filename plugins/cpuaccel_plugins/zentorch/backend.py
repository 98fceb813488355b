"""What ``zentorch`` asks for, and applying it."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch

from cpuaccel import (
    Applied,
    Backend,
    BackendError,
    Context,
    Form,
    Host,
    Options,
    Signature,
    Verdict,
)

from ..inductor.build import build
from ..inductor.compilation import Compiler
from ..inductor.toolchain import toolchain

WITHOUT = "Leave zentorch out, and try inductor, onednn or openvino"
NAMESPACE = "zentorch::"


class ZenTorch(Backend[Options]):
    """Compiles the whole model with ``torch.compile`` and zentorch, its weights frozen.

    Unfrozen, zentorch neither packs weights nor fuses query, key and value.
    """

    name = "zentorch"
    summary = "AMD's zentorch: torch.compile with ZenDNN's linears and attention, on AMD processors"
    takes = Form.MODULE
    gives = Form.COMPILED
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "how many tokens are left without padding depends on the mask's "
        "values, which torch.compile can't put into one graph"
    }
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

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """There has to be a tensor to compute on."""
        if not signature.tensors:
            return Verdict.no(
                "none of the inputs is a tensor, so there is nothing to compile",
                "Pass the inputs as tensors, or leave zentorch out",
            )
        return Verdict.yes()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Compile, run once, and see that ZenDNN's operators are what was executed."""
        signature = context.signature
        call = build(model, signature, self.name, _compiler(), counters={})
        example = {n: v for n, v in signature.inputs.items() if isinstance(v, torch.Tensor)}
        executed = _executed(call, example)
        if not executed:
            raise BackendError(
                f"none of zentorch's operators was executed in {type(model).__name__}", WITHOUT
            )
        call.evidence.update(sorted(executed.items()))
        return Applied(call, evidence=call.evidence)


def _compiler() -> Compiler:
    """What zentorch registers with Dynamo when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        import zentorch  # noqa: F401
        from torch._dynamo import lookup_backend

        return lookup_backend("zentorch")


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
