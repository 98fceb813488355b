"""The backend ``openvino``."""

from pathlib import Path
from typing import Literal

import torch

import cpuaccel
from cpuaccel import Applied, Context, Host, Stepper, Unload, Verdict
from cpuaccel_plugins.openvino.base import DECODING, OpenVinoBackend
from cpuaccel_plugins.openvino.conversion import convert


class OpenVinoOptions(cpuaccel.Options):
    """Options of ``openvino``.

    Attributes:
        cache_dir: a folder in which OpenVINO caches compiled models for later processes; for calls
            of ``forward`` only.
        weights: how weights are stored for ``generate``. 4 bits change the text more than 8 bits
            (``openvino_int8``) do: measure the quality before you use them. Calls of ``forward``
            compute with float weights only.
    """

    cache_dir: Path | None = None
    weights: Literal["float", "int4"] = "float"


class OpenVino(OpenVinoBackend[OpenVinoOptions]):
    """Converts the model with ``openvino.convert_model`` and compiles it for the CPU."""

    name = "openvino"
    summary = "OpenVINO's CPU runtime: converted from torch, any batch and length"
    generates = True
    requires = (("torch>=2.8", "openvino>=2026.4"),)
    Options = OpenVinoOptions

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, compile and run once."""
        converted = convert(model, context.signature, self.name)
        return self.compile(model, converted, context, self.options.cache_dir)

    def check_generation(self, host: Host) -> Verdict:
        """Require the exporters of Transformers, and NNCF for compressed weights."""
        nncf = () if self.options.weights == "float" else ("nncf>=3.4",)
        return host.meets((*DECODING, *nncf))

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        """Export to a graph with keys and values as its state, and compile it."""
        # These need transformers.
        from cpuaccel_plugins.openvino.decoding.build import make_stepper
        from cpuaccel_plugins.openvino.decoding.weights import Weights

        return make_stepper(model, Weights(self.options.weights), self.name, host)
