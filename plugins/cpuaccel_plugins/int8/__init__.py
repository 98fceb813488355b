"""Backend ``int8``: linears in 8 bits on oneDNN, in the graph that ``onednn`` fuses."""

import cpuaccel

from .backend import Int8
from .sensitivity import sensitive_linears

__all__ = ["cpuaccel_backends", "sensitive_linears"]


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[Int8]]:
    """Offer ``int8``."""
    return [Int8]
