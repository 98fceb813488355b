"""Running a stack's own tests where that stack is, and saying elsewhere what is missing."""

from collections.abc import Iterable
from pathlib import Path

import pytest

import cpuaccel


def skip_elsewhere(items: Iterable[pytest.Item], folder: Path, *requirements: str) -> None:
    """Skip the tests in a folder where not all of what they need is installed.

    Args:
        items: all tests that were collected.
        folder: named for the stack.
        requirements: what makes the stack, as PEP 508 has it.
    """
    verdict = cpuaccel.host().meets(requirements)
    if verdict:
        return
    skip = pytest.mark.skip(reason=f"not the {folder.name} stack: {verdict.reason}")
    for item in items:
        if folder in item.path.parents:
            item.add_marker(skip)
