"""Exit codes and errors of the examples."""

import sys
from collections.abc import Callable
from typing import NoReturn

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(Exception):
    """An invalid command line."""


class ExampleError(Exception):
    """Data or a model that can't be used."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a message on what is kept and how to continue."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run an example and exit: 0 success, 1 failure, 2 usage error, 130 interrupted.

    Errors of the user print a message instead of a traceback.

    Args:
        main: the example. It imports slow modules in its body, where Ctrl-C is handled.
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
        # An unforeseen error: the message of the system is the most precise.
        where = f" at {error.filename}" if error.filename else ""
        _exit(FAILURE, f"error: {error.strerror or error}{where}. Fix this and run again")
    except ModuleNotFoundError as error:
        _exit(
            FAILURE,
            f'error: {error.name} is not installed. Run: pip install ".[examples]"',
        )
    except Exception as error:
        from cpuaccel.errors import CpuaccelError, PipelineError

        if not isinstance(error, CpuaccelError):
            raise
        _exit(USAGE if isinstance(error, PipelineError) else FAILURE, f"error: {error}")
    sys.exit(0)


def print_status(message: str) -> None:
    """Print a message that is not a result, to stderr."""
    sys.stderr.write(f"{message}\n")


def _exit(code: int, message: str) -> NoReturn:
    print_status(message)
    sys.exit(code)
