"""A task without a model, whose batches tests hold up and inspect."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    text: str

    @property
    def tokens(self) -> int:
        return len(self.text)


class PoisonError(Exception):
    """What a bad row raises."""


class Shout:
    """Makes words upper-case, and raises on batches that have a bad one.

    Attributes:
        batches: texts of the batches that were begun.
        begun: set when a batch is begun.
        go: batches wait for it.
    """

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        if not held:
            self.go.set()

    def encode(self, items: Sequence[str]) -> list[Word]:
        return [Word(item) for item in items]

    def run(self, rows: Sequence[Word]) -> list[str]:
        self.batches.append([row.text for row in rows])
        self.begun.set()
        self.go.wait()
        for row in rows:
            if "bad" in row.text:
                raise PoisonError(row.text)
        return [row.text.upper() for row in rows]
