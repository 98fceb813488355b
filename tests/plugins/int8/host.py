"""Whether this host can have the backend."""

import pytest

import cpuaccel

BACKEND = cpuaccel.backends()["int8"]
HERE = BACKEND(BACKEND.Options()).check(cpuaccel.host())
needs_engine = pytest.mark.skipif(not HERE, reason=str(HERE))
