"""Backend ``bettertransformer``: fused attention without padding."""

import cpuaccel
from cpuaccel_plugins.bettertransformer.backend import BetterTransformer, BetterTransformerOptions

__all__ = ["BetterTransformerOptions", "cpuaccel_backends"]


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[BetterTransformer]]:
    return [BetterTransformer]
