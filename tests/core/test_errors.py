import pytest

from cpuaccel import describe_error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a head of 7\nand a page of advice"), "ValueError: a head of 7"),
        (RuntimeError("\n  late, and set in\n"), "RuntimeError: late, and set in"),
        (NotImplementedError(), "NotImplementedError"),
        (KeyError("hidden_size"), "KeyError: 'hidden_size'"),
        (
            RuntimeError("compiling failed:\n\n  no such kernel\nat"),
            "RuntimeError: compiling failed: no such kernel",
        ),
        (
            RuntimeError("no such kernel. " + "It is said at length. " * 40),
            "RuntimeError: no such kernel" + ". It is said at length" * 8,
        ),
        (RuntimeError("x" * 300), "RuntimeError: " + "x" * 199 + "…"),
    ],
)
def test_describe_error_returns_the_type_and_one_line(error: Exception, expected: str) -> None:
    assert describe_error(error) == expected
