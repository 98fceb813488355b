import pytest

from cpuaccel.timing import Ratio, interleave


def test_a_ratio_is_of_pairs() -> None:
    ratio = Ratio.of([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    assert ratio == Ratio(median=4.0, low=3.0, high=6.0, pairs=3)
    assert str(ratio) == "4.00x [3.00, 6.00]"


def test_one_pair() -> None:
    assert Ratio.of([3.0], [2.0]) == Ratio(1.5, 1.5, 1.5, 1)


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Ratio.of([1.0, 2.0], [1.0])


def test_callables_are_called_in_turn_after_a_warm_up() -> None:
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


def test_no_round_is_begun_after_its_time() -> None:
    times = interleave({"a": lambda: None}, rounds=1000, seconds=-1.0)
    assert len(times["a"]) == 1
