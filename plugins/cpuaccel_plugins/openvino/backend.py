"""What ``openvino`` asks for, and applying it."""

from collections.abc import Callable
from pathlib import Path

import torch

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Signature, Verdict
from cpuaccel_plugins.openvino.acceptance import convertible, is_bfloat16, precision
from cpuaccel_plugins.openvino.compilation import compile_for_cpu
from cpuaccel_plugins.openvino.conversion import convert
from cpuaccel_plugins.openvino.execution import CompiledCall
from cpuaccel_plugins.openvino.runtime_graph import execution_evidence


class OpenVinoOptions(cpuaccel.Options):
    """Options of ``openvino``.

    Attributes:
        cache_dir: a folder in which OpenVINO keeps compiled models, and from which it loads them in
            later processes; None keeps none.
    """

    cache_dir: Path | None = None


class OpenVino(Backend[OpenVinoOptions]):
    """Converts the model with ``openvino.convert_model`` and compiles it for the CPU.

    bfloat16 is left to OpenVINO (``casts``): the float32 model with the hint ``bf16`` measured
    faster than a model that was cast before, and keeps float32 where OpenVINO finds it needed.
    """

    name = "openvino"
    summary = "OpenVINO's CPU runtime: converted from torch, compiled for any batch and length"
    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    requires = (("torch>=2.8", "openvino>=2026.4"),)
    casts = True
    Options = OpenVinoOptions

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Whether there is something to convert, in a precision that OpenVINO is used in."""
        return super().accepts(model, signature) and convertible(model)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, compile, run once, and see what was executed in which precision."""
        asked = precision(model, context.dtype)
        converted = convert(model, context.signature)
        compiled = compile_for_cpu(
            converted, asked, name=type(model).__name__, cache_dir=self.options.cache_dir
        )
        call = CompiledCall(
            compiled,
            context.signature.tensors,
            returns=torch.bfloat16 if is_bfloat16(model) else None,
        )
        call(**context.signature.tensor_inputs)
        evidence = execution_evidence(compiled, asked)
        if self.options.cache_dir is not None:
            loaded = compiled.get_property("LOADED_FROM_CACHE")
            evidence = {**evidence, "loaded_from_cache": "yes" if loaded else "no"}
        return Applied(call, evidence=evidence)
