from pathlib import Path

import pytest

from tests.stacks.needs import skip_elsewhere


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_elsewhere(
        items, Path(__file__).parent, "torch==1.13.*", "transformers==4.30.*", "optimum==1.8.*"
    )
