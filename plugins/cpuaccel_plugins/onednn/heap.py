"""What a build has freed goes back to the system while it goes on."""

import ctypes
import sys


def trim() -> None:
    """Have glibc return the memory that nothing uses; other C libraries are left alone.

    It would keep what probes and weights that were given up leave, and what is packed next would
    come to lie beside it.
    """
    if sys.platform != "linux":
        return
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
