"""The fastest candidate is measured once for each kind, and ties and margins are respected."""

from cpuaccel_plugins.aten_graph.fastest import FastestChoice, least_times


def test_each_kind_is_measured_once() -> None:
    measured: list[str] = []

    def measure(kind: str) -> dict[str, float]:
        measured.append(kind)
        return {"a": 2.0, "b": 1.0}

    choice = FastestChoice(measure)
    assert [choice.fastest(kind) for kind in ("x", "y", "x")] == ["b", "b", "b"]
    assert measured == ["x", "y"]
    assert choice.times == {"x": {"a": 2.0, "b": 1.0}, "y": {"a": 2.0, "b": 1.0}}


def test_of_equally_fast_candidates_the_first_is_chosen() -> None:
    assert FastestChoice(lambda kind: {"a": 1.0, "b": 1.0}).fastest("x") == "a"


def test_a_handicap_is_the_margin_to_win_by() -> None:
    choice = FastestChoice(lambda ratio: {"a": ratio, "b": 1.0}, handicaps={"b": 1.1})
    assert [choice.fastest(ratio) for ratio in (1.05, 1.15)] == ["a", "b"]


def test_a_fixed_candidate_is_chosen_without_measuring() -> None:
    def measure(kind: str) -> dict[str, float]:
        raise AssertionError

    assert FastestChoice(measure, fixed="b").fastest("x") == "b"


def test_candidates_are_called_in_turn_after_warming_up() -> None:
    calls: list[str] = []
    times = least_times({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert "".join(calls) == "aabb" + "abab"
    assert all(seconds > 0 for seconds in times.values())
