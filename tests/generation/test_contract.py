"""The built-in backends that generate pass the conformance kit."""

from cpuaccel.testing import GenerationContract


class TestOneDnn(GenerationContract):
    backend = "onednn"


class TestInt8(GenerationContract):
    backend = "int8"
