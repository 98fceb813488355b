"""The backend ``openvino``."""

from pathlib import Path

import torch

import cpuaccel
from cpuaccel import Applied, Context
from cpuaccel_plugins.openvino.base import OpenVinoBackend
from cpuaccel_plugins.openvino.conversion import convert


class OpenVinoOptions(cpuaccel.Options):
    """Options of ``openvino``.

    Attributes:
        cache_dir: a folder in which OpenVINO caches compiled models for later processes.
    """

    cache_dir: Path | None = None


class OpenVino(OpenVinoBackend[OpenVinoOptions]):
    """Converts the model with ``openvino.convert_model`` and compiles it for the CPU."""

    name = "openvino"
    summary = "OpenVINO's CPU runtime: converted from torch, any batch and length"
    requires = (("torch>=2.8", "openvino>=2026.4"),)
    Options = OpenVinoOptions

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, compile and run once."""
        converted = convert(model, context.signature, self.name)
        return self.compile(model, converted, context, self.options.cache_dir)
