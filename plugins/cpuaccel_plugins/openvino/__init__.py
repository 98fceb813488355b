"""Backends ``openvino`` and ``openvino_int8``: OpenVINO's CPU runtime."""

import cpuaccel
from cpuaccel_plugins.openvino.backend import OpenVino, OpenVinoOptions
from cpuaccel_plugins.openvino.int8_backend import OpenVinoInt8, OpenVinoInt8Options

__all__ = ["OpenVinoInt8Options", "OpenVinoOptions", "cpuaccel_backends"]


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[OpenVino | OpenVinoInt8]]:
    return [OpenVino, OpenVinoInt8]
