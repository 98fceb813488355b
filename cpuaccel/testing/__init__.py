"""The conformance kit: what every backend promises, as tests that a plugin's author subclasses.

    from cpuaccel.testing import BackendContract

    class TestHalve(BackendContract):
        backend = "halve"

Needs pytest, and nothing else that cpuaccel itself does not need.
"""

import pytest

# Without it, the assertions of a library say no more than that they failed.
for _module in ("outputs", "application", "declaration", "runtime", "subject", "verdicts"):
    pytest.register_assert_rewrite(f"cpuaccel.testing.{_module}")

from cpuaccel.testing.contract import BackendContract  # noqa: E402
from cpuaccel.testing.hosts import fake_host  # noqa: E402
from cpuaccel.testing.models import Encoded, MaskedEncoder, tiny_text_model  # noqa: E402

__all__ = ["BackendContract", "Encoded", "MaskedEncoder", "fake_host", "tiny_text_model"]
