import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.timing import Ratio, Speedup, format_ms, format_ratio, interleave


def test_ratio_of_pairs() -> None:
    ratio = Ratio.from_times([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    assert ratio == Ratio(median=4.0, low=3.0, high=6.0, pairs=3)
    assert str(ratio) == "4.00x [3.00, 6.00]"


def test_one_pair() -> None:
    ratio = Ratio.from_times([3.0], [2.0])
    assert ratio == Ratio(1.5, 1.5, 1.5, 1)
    assert str(ratio) == "1.50x (1 pair)"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(1411.2, "1,411 ms"), (99.96, "100 ms"), (12.34, "12.3 ms"), (0.714, "0.71 ms")],
)
def test_milliseconds(milliseconds: float, text: str) -> None:
    assert format_ms(milliseconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(55.23, "55"), (9.97, "10"), (3.14, "3.1"), (0.123, "0.12")]
)
def test_ratios_that_vary(ratio: float, text: str) -> None:
    assert format_ratio(ratio) == text


def test_rejects_lists_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Ratio.from_times([1.0, 2.0], [1.0])


def test_interleaves_after_a_warm_up() -> None:
    calls: list[str] = []
    ticks: list[None] = []
    times = interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        rounds=2,
        warmup=2,
        progress=lambda: ticks.append(None),
    )
    assert "".join(calls) == "aabb" + "ab" * 2
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}
    assert len(ticks) == 4


def test_the_time_limit_ends_interleaving() -> None:
    times = interleave({"a": lambda: None}, rounds=1000, seconds=-1.0)
    assert len(times["a"]) == 1


def test_interval_of_the_sign_test() -> None:
    """For n values in order: from which to which the median lies, 95 times of 100 (tables)."""
    expected = {1: (1, 1), 5: (1, 5), 6: (1, 6), 9: (2, 8), 12: (3, 10), 20: (6, 15), 50: (18, 33)}
    for count, (low, high) in expected.items():
        speedup = Speedup.from_ratios([float(n) for n in range(1, count + 1)])
        assert (speedup.low, speedup.high) == (low, high), count
        assert speedup.median == statistics.median(range(1, count + 1))
        assert speedup.pairs == count


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60))
def test_interval_contains_the_median(values: list[float]) -> None:
    speedup = Speedup.from_ratios(values)
    assert min(values) <= speedup.low <= speedup.median <= speedup.high <= max(values)


def test_significance() -> None:
    assert Speedup.from_ratios([1.1, 1.2, 1.1]).significant
    assert not Speedup.from_ratios([1.1, 1.2]).significant, "two may be luck"
    assert not Speedup.from_ratios([1.1, 0.99, 1.2]).significant
    assert Speedup.from_ratios([0.9, 0.8, 0.9]).slower
    assert not Speedup.from_ratios([0.9, 1.0, 0.9]).slower


def test_one_stall_does_not_change_the_interval() -> None:
    steady = [(2.0, 1.0)] * 20
    stalled = [*steady, (2.0, 500.0)]
    speedup = Speedup.from_ratios([b / c for b, c in stalled])
    assert (speedup.median, speedup.low) == (2.0, 2.0)
