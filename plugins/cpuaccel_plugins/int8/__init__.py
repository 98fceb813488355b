"""Backend ``int8``: linears in 8 bits on oneDNN, in the graph that ``onednn`` fuses."""

import cpuaccel
from cpuaccel_plugins.int8.backend import Int8
from cpuaccel_plugins.int8.options import Int8Options, Kind
from cpuaccel_plugins.int8.sensitivity import sensitive_linears

__all__ = ["Int8Options", "Kind", "cpuaccel_backends", "sensitive_linears"]


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[Int8]]:
    return [Int8]
