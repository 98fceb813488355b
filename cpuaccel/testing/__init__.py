"""The conformance kit: a plugin author subclasses ``BackendContract`` to test a backend.

    from cpuaccel.testing import BackendContract

    class TestHalve(BackendContract):
        backend = "halve"

Needs pytest beside cpuaccel's own dependencies.
"""

import pytest

# pytest shows the values in a library's failed assertions only where it rewrote the module.
for _module in (
    *("outputs", "application", "declaration", "runtime", "subject", "verdicts"),
    *(f"generation.{name}" for name in ("decoders", "stepper", "subject", "text")),
):
    pytest.register_assert_rewrite(f"cpuaccel.testing.{_module}")

from cpuaccel.testing.contract import BackendContract  # noqa: E402
from cpuaccel.testing.generation.contract import GenerationContract  # noqa: E402
from cpuaccel.testing.hosts import fake_host  # noqa: E402
from cpuaccel.testing.models import Encoded, MaskedEncoder, tiny_text_model  # noqa: E402

__all__ = [
    "BackendContract",
    "Encoded",
    "GenerationContract",
    "MaskedEncoder",
    "fake_host",
    "tiny_text_model",
]
