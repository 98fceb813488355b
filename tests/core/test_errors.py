import pytest

from cpuaccel import describe_error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a head of 7\nand a page of advice"), "ValueError: a head of 7"),
        (RuntimeError("\n  late, and set in\n"), "RuntimeError: late, and set in"),
        (NotImplementedError(), "NotImplementedError"),
        (KeyError("hidden_size"), "KeyError: 'hidden_size'"),
    ],
)
def test_describe_error_returns_the_type_and_the_first_line(
    error: Exception, expected: str
) -> None:
    assert describe_error(error) == expected
