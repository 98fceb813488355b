"""How an example ends: with what exit code, and with what words."""

import sys
from collections.abc import Callable
from typing import NoReturn

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(Exception):
    """A mistake in what was asked: says what was asked, what is true and what to do."""


class ExampleError(Exception):
    """What was asked can't be done: says what was asked, what is true and what to do."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, where more can be said than that: what is kept, and how to go on."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run an example and end the process.

    It ends with 0, with 2 for a mistake in what was asked, with 1 for a failure, with 130 when
    interrupted. No mistake of the user's ends in a traceback.

    Args:
        main: the example. What takes seconds to import belongs into its body: here Ctrl-C is
            already listened to.
    """
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _exit(INTERRUPTED, f"interrupted{f': {interrupt}' if str(interrupt) else ''}")
    except UsageError as error:
        _exit(USAGE, f"error: {error}")
    except ExampleError as error:
        _exit(FAILURE, f"error: {error}")
    except OSError as error:
        # Of what nobody foresaw, the system's own words say best what is true.
        where = f" at {error.filename}" if error.filename else ""
        _exit(FAILURE, f"error: {error.strerror or error}{where}. Mend that, and run it again")
    except Exception as error:
        from cpuaccel.errors import CpuaccelError, PipelineError

        if not isinstance(error, CpuaccelError):
            raise
        _exit(USAGE if isinstance(error, PipelineError) else FAILURE, f"error: {error}")
    sys.exit(0)


def tell(message: str) -> None:
    """Tell the user something that is no result."""
    sys.stderr.write(f"{message}\n")


def _exit(code: int, message: str) -> NoReturn:
    tell(message)
    sys.exit(code)
