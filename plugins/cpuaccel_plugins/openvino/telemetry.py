"""No usage statistics of people who have not called OpenVINO themselves."""

from contextlib import AbstractContextManager

from cpuaccel_plugins.common.environment import environment_variable


def telemetry_off() -> AbstractContextManager[None]:
    """Keep ``convert_model`` and NNCF from sending usage statistics.

    They do so unless the user has opted out. This is the switch that OpenVINO documents for a
    process; cpuaccel's user has not called OpenVINO and would not expect it.
    """
    return environment_variable("CI", "true")
