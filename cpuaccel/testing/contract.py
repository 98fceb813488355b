"""All that a backend promises, in one class to subclass."""

from cpuaccel.testing.application import ApplicationContract
from cpuaccel.testing.declaration import DeclarationContract
from cpuaccel.testing.outputs import OutputsContract
from cpuaccel.testing.runtime import RuntimeContract
from cpuaccel.testing.verdicts import VerdictsContract


class BackendContract(
    DeclarationContract,
    VerdictsContract,
    ApplicationContract,
    OutputsContract,
    RuntimeContract,
):
    """The tests that every backend has to pass, on the real backend.

    Example::

        class TestHalve(BackendContract):
            backend = "halve"
            options = {"layers": 2}

    What there is to override is in ``cpuaccel.testing.subject.Subject``. Where the host can't
    have the backend, the tests that need its engine skip with the verdict as their reason; those
    of its declaration and verdicts run everywhere.
    """
