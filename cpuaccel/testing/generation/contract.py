"""The whole contract of a backend that generates, in one class to subclass."""

from cpuaccel.testing.generation.stepper import StepperContract
from cpuaccel.testing.generation.text import TextContract


class GenerationContract(TextContract, StepperContract):
    """Tests that every backend with ``generates = True`` has to pass, beside ``BackendContract``.

    Example:

        class TestHalveGenerates(GenerationContract):
            backend = "halve"

    ``GenerationSubject`` and ``Subject`` document what to override. The tests are skipped on a host
    without Transformers 5, or without what the backend requires.
    """
