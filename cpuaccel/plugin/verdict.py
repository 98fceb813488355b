"""Yes, or no with a reason and a remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a backend says of a host or of a model. True in a boolean context when it is a yes.

    Attributes:
        ok: whether the backend can be used.
        reason: for a no, what is true.
        remedy: for a no, what the user can do about it.
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
        """The backend can be used."""
        return cls(ok=True)

    @classmethod
    def no(cls, reason: str, remedy: str = "") -> "Verdict":
        """The backend can't be used; neither sentence ends in a full stop."""
        return cls(ok=False, reason=reason, remedy=remedy)
