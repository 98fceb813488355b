"""Backend ``onednn``: the graph optimization that IPEX brought, on operators of stock torch."""

import cpuaccel
from cpuaccel_plugins.onednn.backend import OneDnn


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[OneDnn]]:
    """Offer ``onednn``."""
    return [OneDnn]
