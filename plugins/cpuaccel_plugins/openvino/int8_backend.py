"""What ``openvino_int8`` asks for, and applying it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import torch

import cpuaccel
from cpuaccel import Applied, Backend, BackendError, Context, Form, Signature, Verdict
from cpuaccel_plugins.openvino.acceptance import convertible, is_bfloat16, precision
from cpuaccel_plugins.openvino.calibration import examples
from cpuaccel_plugins.openvino.compilation import compile_for_cpu
from cpuaccel_plugins.openvino.conversion import convert
from cpuaccel_plugins.openvino.execution import CompiledCall
from cpuaccel_plugins.openvino.quantization import quantize
from cpuaccel_plugins.openvino.runtime_graph import INT8_PRODUCTS, execution_evidence


class OpenVinoInt8Options(cpuaccel.Options):
    """Options of ``openvino_int8``.

    Attributes:
        calibration: a safetensors file with inputs by name, one row for each sample, from which the
            ranges of activations are taken; None takes the rows of the example inputs.
    """

    calibration: Path | None = None


class OpenVinoInt8(Backend[OpenVinoInt8Options]):
    """Converts the model as ``openvino`` does, and has NNCF quantize it to 8 bits.

    Weights and activations get scales that stay: the activations' come from samples, so these have
    to be like what the model will be called with.
    """

    name = "openvino_int8"
    summary = "OpenVINO's CPU runtime in 8 bits, quantized by NNCF on samples of the inputs"
    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    requires = (("torch>=2.8", "openvino>=2026.4", "nncf>=3.4"),)
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "NNCF does not follow what removes padding"
    }
    casts = True
    tolerance = 0.3
    Options = OpenVinoInt8Options

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Whether there is something to convert, in a precision that OpenVINO is used in."""
        return super().accepts(model, signature) and convertible(model)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, quantize, compile, run once, and see what was executed in 8 bits."""
        asked, name = precision(model, context.dtype), type(model).__name__
        samples = examples(context.signature, self.options.calibration)
        quantized = quantize(convert(model, context.signature), samples, context.host, name=name)
        compiled = compile_for_cpu(quantized, asked, name=name)
        call = CompiledCall(
            compiled,
            context.signature.tensors,
            returns=torch.bfloat16 if is_bfloat16(model) else None,
        )
        call(**context.signature.tensor_inputs)
        evidence = execution_evidence(compiled, asked)
        if not evidence.get(INT8_PRODUCTS):
            raise BackendError(
                f"OpenVINO runs none of {name}'s matrix products in 8 bits",
                "Use openvino for this model",
            )
        return Applied(call, evidence={**evidence, "samples": len(samples)})
