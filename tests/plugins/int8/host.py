"""Facts about hosts with fast 8 bit products."""

import cpuaccel
from tests.required import INT8, requires

BACKEND = cpuaccel.backends()["int8"]
needs_engine = requires("torch>=2.8", INT8)
