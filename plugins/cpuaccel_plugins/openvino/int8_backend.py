"""The backend ``openvino_int8``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

import cpuaccel
from cpuaccel import Applied, BackendError, Context, Host, Stepper, Unload, Verdict
from cpuaccel_plugins.openvino.base import DECODING, OpenVinoBackend
from cpuaccel_plugins.openvino.conversion import convert
from cpuaccel_plugins.openvino.quantization import examples, quantize, value_ranges
from cpuaccel_plugins.openvino.runtime_graph import INT8_PRODUCTS


class OpenVinoInt8Options(cpuaccel.Options):
    """Options of ``openvino_int8``.

    Attributes:
        calibration: a safetensors file with inputs by name, one row per sample, for the ranges of
            activations; None for the rows of the example inputs. ``generate`` needs none.
    """

    calibration: Path | None = None


class OpenVinoInt8(OpenVinoBackend[OpenVinoInt8Options]):
    """Converts the model like ``openvino``, and quantizes it to 8 bits with NNCF.

    The scales of activations are computed once from samples, which must resemble later inputs:
    calls with larger or smaller floating-point values go to the original. For ``generate`` only the
    weights are quantized, and activations in each call.
    """

    name = "openvino_int8"
    summary = "OpenVINO's CPU runtime in 8 bits, quantized by NNCF on samples of the inputs"
    generates = True
    requires = (("torch>=2.8", "openvino>=2026.4", "nncf>=3.4"),)
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "NNCF can't quantize the code that removes padding"
    }
    tolerance = 0.3
    Options = OpenVinoInt8Options

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, quantize, compile, run once, and check that products run in 8 bits."""
        samples = examples(context.signature, self.options.calibration)
        converted = convert(model, context.signature, self.name)
        applied = self.compile(model, quantize(converted, samples, context.host, model), context)
        if not applied.evidence.get(INT8_PRODUCTS):
            raise BackendError(
                f"no matrix product of {type(model).__name__} runs in 8 bits",
                "Use openvino for this model",
            )
        evidence = {**applied.evidence, "samples": len(samples)}
        return replace(applied, evidence=evidence, value_ranges=value_ranges(samples))

    def check_generation(self, host: Host) -> Verdict:
        """Require the exporters of Transformers, and NNCF."""
        return host.meets((*DECODING, "nncf>=3.4"))

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        """Export to a graph with keys and values as its state, and compress its weights."""
        # These need transformers.
        from cpuaccel_plugins.openvino.decoding.build import make_stepper
        from cpuaccel_plugins.openvino.decoding.weights import Weights

        return make_stepper(model, Weights.INT8, self.name, host)
