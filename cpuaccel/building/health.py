"""Whether a variant still deserves to be called: its faults, and when they are too many."""

MAX_FAULTS = 5
"""Faults in a row after which a variant is switched off: every one costs two calls."""


class Health:
    """Follows one variant's calls, from any thread.

    Attributes:
        off: why the variant is not called any more; empty while it is.
    """

    def __init__(self) -> None:
        self.off = ""
        self._in_a_row = 0

    def sound(self) -> None:
        """Note a call that it answered."""
        self._in_a_row = 0

    def fault(self, reason: str) -> bool:
        """Note a call that it did not answer rightly, though the original could.

        Returns:
            Whether this one has switched it off. Threads that fail at the same moment may count as
            one: it is then switched off some calls later.
        """
        self._in_a_row += 1
        if self._in_a_row < MAX_FAULTS or self.off:
            return False
        self.off = f"switched off after {MAX_FAULTS} faults in a row, the last: {reason}"
        return True
