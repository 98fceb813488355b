"""Saying what the caller is waiting for, where it takes long."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("cpuaccel")

SECONDS = 60.0
"""After which it is said first; then after twice as long each time."""


@contextmanager
def warn_if_slow(what: str) -> Iterator[None]:
    """Warn while the body lasts long. What plugins do in this process can't be ended from outside.

    Args:
        what: the subject and verb, such as ``jit is being applied``.
    """
    done = threading.Event()

    def tell() -> None:
        waited, seconds = 0.0, SECONDS
        while not done.wait(seconds):
            waited += seconds
            seconds = waited
            logger.warning(
                "%s, for %.0f s so far. Ctrl-C stops it, and leaves the model as it was",
                what,
                waited,
            )

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
