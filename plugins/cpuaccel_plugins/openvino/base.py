"""What the backends of OpenVINO's CPU runtime share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from cpuaccel import Applied, Backend, Context, Form, Options, Signature, Verdict
from cpuaccel_plugins.common.weight_dtypes import require_weight_dtypes, weight_dtypes
from cpuaccel_plugins.openvino.compilation import PRECISIONS, compile_for_cpu
from cpuaccel_plugins.openvino.execution import CompiledCall
from cpuaccel_plugins.openvino.runtime_graph import execution_evidence

if TYPE_CHECKING:
    import openvino

OptionsT = TypeVar("OptionsT", bound=Options)


class OpenVinoBackend(Backend[OptionsT], Generic[OptionsT]):
    """A backend that converts the model and compiles it for OpenVINO's CPU runtime.

    bfloat16 is left to OpenVINO (``casts``): the float32 model with the hint ``bf16`` measured
    faster than a model that was cast before, and keeps float32 where OpenVINO finds it needed.
    """

    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    casts = True

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Require weights in a precision that OpenVINO can be asked for."""
        return super().accepts(model, signature) and require_weight_dtypes(
            model, PRECISIONS, self.name
        )

    def compile(
        self,
        model: torch.nn.Module,
        converted: "openvino.Model",
        context: Context,
        cache_dir: Path | None = None,
    ) -> Applied:
        """Compile, run once, and see what was executed in which precision.

        Args:
            model: the original.
            converted: what was made of it.
            context: the pipeline's precision, and real inputs.
            cache_dir: where OpenVINO keeps compiled models; None keeps none.
        """
        signature = context.signature
        bfloat16 = weight_dtypes(model) == {torch.bfloat16}
        precision = context.dtype or (torch.bfloat16 if bfloat16 else torch.float32)
        compiled = compile_for_cpu(converted, precision, model, self.name, cache_dir)
        returns = torch.bfloat16 if bfloat16 else None
        call = CompiledCall(compiled, signature.tensors, returns, self.name)
        call(**signature.tensor_inputs)
        evidence = execution_evidence(compiled, precision)
        if cache_dir is not None:
            loaded = compiled.get_property("LOADED_FROM_CACHE")
            evidence["loaded_from_cache"] = "yes" if loaded else "no"
        return Applied(call, evidence=evidence)
