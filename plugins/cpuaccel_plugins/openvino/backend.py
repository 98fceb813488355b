"""What ``openvino`` asks for, and applying it."""

from pathlib import Path

import torch

import cpuaccel
from cpuaccel import Applied, Context
from cpuaccel_plugins.openvino.base import OpenVinoBackend
from cpuaccel_plugins.openvino.conversion import convert


class OpenVinoOptions(cpuaccel.Options):
    """Options of ``openvino``.

    Attributes:
        cache_dir: a folder in which OpenVINO keeps compiled models, and from which it loads them in
            later processes; None keeps none.
    """

    cache_dir: Path | None = None


class OpenVino(OpenVinoBackend[OpenVinoOptions]):
    """Converts the model with ``openvino.convert_model`` and compiles it for the CPU."""

    name = "openvino"
    summary = "OpenVINO's CPU runtime: converted from torch, compiled for any batch and length"
    requires = (("torch>=2.8", "openvino>=2026.4"),)
    Options = OpenVinoOptions

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, compile, run once, and see what was executed in which precision."""
        converted = convert(model, context.signature, self.name)
        return self.compile(model, converted, context, self.options.cache_dir)
