"""Importing zentorch so that its answers can be relied on."""

import functools
import os
import sys
import warnings

from cpuaccel import BackendError
from cpuaccel_plugins.inductor.compilation import Compiler

WEIGHT_CACHE = "ZENDNNL_MATMUL_WEIGHT_CACHE"


@functools.cache
def compiler() -> Compiler:
    """What zentorch registers with Dynamo when it is imported.

    ZenDNN keeps reordered weights by the address of the weights. Where a model was let go and
    another has taken its place in memory, it would compute with the former's. It reads whether to
    keep them once, from the environment.

    Raises:
        BackendError: other code has imported zentorch with that cache on.
    """
    if sys.modules.get("zentorch") is not None and os.environ.get(WEIGHT_CACHE) != "0":
        raise BackendError(
            "zentorch was imported before cpuaccel could switch off its cache of weights, which "
            "goes by their addresses and mistakes one model's for another's",
            f"Set {WEIGHT_CACHE}=0 before the process starts, or import zentorch after cpuaccel "
            "has used it",
        )
    os.environ[WEIGHT_CACHE] = "0"  # put back after the step, like all that a step changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        import zentorch  # noqa: F401
        from torch._dynamo import lookup_backend

        return lookup_backend("zentorch")
