"""What OpenVINO's error messages say, without the places in its sources that they begin with."""

import re

from cpuaccel import describe_error

_PLACE = re.compile(r"(Exception from |Check '.*' failed at ).*:\d+:?")
_ANNOUNCEMENT = re.compile(r"FrontEnd API failed with .*:|Model wasn't fully converted\.|Summary:")
_MISSING = re.compile(r"No conversion rule found for operations: (.+)")


def describe_openvino_error(error: BaseException) -> str:
    """Name the operators that OpenVINO can't convert, or return the first line with a meaning."""
    message = str(error)
    if missing := _MISSING.search(message):
        return f"no conversion rule for {missing[1].strip()}"
    lines = [line.strip().removeprefix("-- ") for line in message.splitlines()]
    meaning = [
        line for line in lines if line and not (_PLACE.fullmatch(line) or _ANNOUNCEMENT.match(line))
    ]
    return describe_error(RuntimeError("\n".join(meaning)) if meaning else error)
