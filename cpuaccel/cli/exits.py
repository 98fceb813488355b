"""What the commands exit with."""

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
