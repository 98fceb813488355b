from pathlib import Path

import pytest

from tests.required import STACKS, unmet

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of a stack, in the folder with its name, on other stacks."""
    for item in items:
        stack = item.path.parent.name
        if FOLDER in item.path.parents and (missing := unmet(STACKS[stack])):
            reason = f"not the {stack} stack: needs {', '.join(missing)}"
            item.add_marker(pytest.mark.skip(reason=reason))
