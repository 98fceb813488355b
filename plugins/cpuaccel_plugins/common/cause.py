"""Telling in one line what an engine or a model's own code raised."""


def cause(error: BaseException) -> str:
    """The type of an error, and the first line of its message, where it has one."""
    lines = (line.strip() for line in str(error).splitlines())
    return ": ".join(filter(None, (type(error).__name__, next(filter(None, lines), ""))))
