from pathlib import Path

import pytest

from tests.stacks.needs import skip_elsewhere


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_elsewhere(
        items,
        Path(__file__).parent,
        "torch==2.8.*",
        "intel-extension-for-pytorch==2.8.*",
        "transformers==4.48.*",
        "optimum==1.24.*",
    )
