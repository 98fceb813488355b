"""No usage statistics of people who have not called OpenVINO themselves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def telemetry_off() -> Iterator[None]:
    """Keep ``convert_model`` and NNCF from sending usage statistics.

    They do so unless the user has opted out. This is the switch that OpenVINO documents for a
    process; cpuaccel's user has not called OpenVINO and would not expect it.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
