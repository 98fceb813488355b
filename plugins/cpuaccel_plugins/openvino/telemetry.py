"""Disabling the telemetry of OpenVINO and NNCF."""

from contextlib import AbstractContextManager

from cpuaccel_plugins.common.environment import environment_variable


def telemetry_off() -> AbstractContextManager[None]:
    """Disable telemetry for a block, with the variable that OpenVINO documents.

    Telemetry is on by default, and users of cpuaccel don't call OpenVINO themselves.
    """
    return environment_variable("CI", "true")
