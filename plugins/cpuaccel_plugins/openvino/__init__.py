"""Backend ``openvino``: OpenVINO's CPU runtime, straight from the torch module."""

import cpuaccel

from .backend import OpenVino


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[OpenVino]]:
    """Offer ``openvino``."""
    return [OpenVino]
