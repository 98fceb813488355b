"""The whole contract of a backend, in one class to subclass."""

from cpuaccel.testing.application import ApplicationContract
from cpuaccel.testing.declaration import DeclarationContract
from cpuaccel.testing.outputs import OutputsContract
from cpuaccel.testing.runtime import RuntimeContract
from cpuaccel.testing.soundness import SoundnessContract
from cpuaccel.testing.verdicts import VerdictsContract


class BackendContract(
    DeclarationContract,
    VerdictsContract,
    ApplicationContract,
    OutputsContract,
    RuntimeContract,
    SoundnessContract,
):
    """Tests that every backend has to pass. They run the real backend.

    Example:

        class TestHalve(BackendContract):
            backend = "halve"
            options = {"layers": 2}

    ``cpuaccel.testing.subject.Subject`` documents what to override. Tests that run the engine are
    skipped on a host that lacks what the backend requires. Tests of the declaration and of the
    verdicts run on every host.
    """
