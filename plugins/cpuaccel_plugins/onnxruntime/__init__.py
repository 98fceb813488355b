"""Backend ``onnxruntime``: export to ONNX, and ONNX Runtime's CPU provider."""

import cpuaccel
from cpuaccel_plugins.onnxruntime.backend import OnnxRuntime, OnnxRuntimeOptions

__all__ = ["OnnxRuntimeOptions", "cpuaccel_backends"]


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[OnnxRuntime]]:
    return [OnnxRuntime]
