"""Warning the caller about work that takes long."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("cpuaccel")

SECONDS = 60.0
"""Until the first warning. The total doubles until each further one."""


@contextmanager
def warn_if_slow(what: str) -> Iterator[None]:
    """Log warnings while the body, such as ``applying jit``, runs longer than a minute."""
    done = threading.Event()

    def warn() -> None:
        waited, seconds = 0.0, SECONDS
        while not done.wait(seconds):
            waited += seconds
            seconds = waited
            logger.warning(
                "still %s after %.0f s. Ctrl-C stops it and leaves the model unchanged",
                what,
                waited,
            )

    thread = threading.Thread(target=warn, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had: the work goes on without a warning
        yield
        return
    try:
        yield
    finally:
        done.set()
        thread.join()
