"""Yes, or no with a reason and a remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a backend can be used on a host or for a model; true in a boolean context if so.

    Attributes:
        ok: whether the backend can be used.
        reason: for a no, why not, without a full stop.
        remedy: for a no, what the user can do about it, without a full stop.
    """

    ok: bool
    reason: str = ""
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return "yes"
        return f"{self.reason}. {self.remedy}" if self.remedy else self.reason

    @classmethod
    def yes(cls) -> "Verdict":
        """Make a verdict that the backend can be used."""
        return cls(ok=True)

    @classmethod
    def no(cls, reason: str, remedy: str = "") -> "Verdict":
        """Make a verdict that the backend can't be used."""
        return cls(ok=False, reason=reason, remedy=remedy)
