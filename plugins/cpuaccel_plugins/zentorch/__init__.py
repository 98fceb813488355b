"""Backend ``zentorch``: AMD's extension of Inductor with ZenDNN kernels."""

import cpuaccel
from cpuaccel_plugins.zentorch.backend import ZenTorch


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[ZenTorch]]:
    return [ZenTorch]
