"""Backend ``onednn``: graph fusions and packed weights on operators of stock torch."""

import cpuaccel
from cpuaccel_plugins.onednn.backend import OneDnn, OneDnnOptions

__all__ = ["OneDnnOptions", "cpuaccel_backends"]


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[OneDnn]]:
    return [OneDnn]
