"""Sentences that errors are made of."""

import difflib
from collections.abc import Iterable, Sequence

from pydantic_core import ErrorDetails

_LONGEST = 200
"""Characters of a value that are told: a file may hold any."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that comes nearest, as a question, or just a full stop."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {near[0]!r}?" if near else "."


def describe_complaint(
    complaint: ErrorDetails, location: Sequence[int | str], known: Iterable[str]
) -> str:
    """One of pydantic's complaints as a sentence that names the field and what comes near.

    Args:
        complaint: the complaint.
        location: the path to the field, from where the reader's eyes are.
        known: names of the fields that there are.
    """
    name = ".".join(str(part) for part in location)
    if complaint["type"] == "extra_forbidden":
        near = did_you_mean(name, known)
        return f"there is no {name!r}{near} Known: {', '.join(known) or 'none'}"
    if complaint["type"] == "missing":
        return f"{name!r} is missing: add it"
    subject = f"{name}: " if name else ""
    got = repr(complaint["input"])
    return f"{subject}{complaint['msg'].lower()}, but got {got[:_LONGEST]}"


def first_line(error: BaseException) -> str:
    """Of an error's message; empty where it has none."""
    return (str(error).strip().splitlines() or [""])[0]
