"""What is told of an error that is not cpuaccel's own."""

import pytest

from cpuaccel_plugins.common.cause import cause


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a head of 7\nand a page of advice"), "ValueError: a head of 7"),
        (RuntimeError("\n  late, and set in\n"), "RuntimeError: late, and set in"),
        (NotImplementedError(), "NotImplementedError"),
        (KeyError("hidden_size"), "KeyError: 'hidden_size'"),
    ],
)
def test_one_line_tells_the_type_and_the_first_line(error: Exception, told: str) -> None:
    assert cause(error) == told
