"""Importing zentorch without its weight cache."""

import functools
import os
import sys
import warnings

from cpuaccel import BackendError
from cpuaccel_plugins.inductor.compilation import Compiler

WEIGHT_CACHE = "ZENDNNL_MATMUL_WEIGHT_CACHE"


@functools.cache
def compiler() -> Compiler:
    """Import zentorch, and return the compiler that it registers with Dynamo.

    ZenDNN caches reordered weights by address, so a new model at the address of a deleted one would
    use the wrong weights. It reads the setting once, from the environment.

    Raises:
        BackendError: zentorch was imported before with this cache enabled.
    """
    if sys.modules.get("zentorch") is not None and os.environ.get(WEIGHT_CACHE) != "0":
        raise BackendError(
            "zentorch was imported with its weight cache enabled, which identifies weights by "
            "address and can mix up two models",
            f"Set {WEIGHT_CACHE}=0 before the process starts, or import zentorch after optimize",
        )
    os.environ[WEIGHT_CACHE] = "0"  # cpuaccel restores it after the step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        import zentorch  # noqa: F401
        from torch._dynamo import lookup_backend

        return lookup_backend("zentorch")
