import pytest

from cpuaccel.tuning.workers.timing import by_batch, measure, passes, ratios


def test_weights_the_batches() -> None:
    assert ratios([((2.0, 1.0), (6.0, 3.0))], [0.5, 0.5]) == [2.0]
    assert ratios([((2.0, 1.0), (6.0, 1.0))], [0.75, 0.25]) == [3.0]
    assert [s.median for s in by_batch([((2.0, 1.0), (6.0, 1.0))] * 2)] == [2.0, 6.0]


def called(monkeypatch: pytest.MonkeyPatch, seconds: float, to_beat: float = 0.0) -> str:
    """Return the order of calls (e: eager, c: candidate), where eager takes twice as long."""
    now, calls = 0.0, []

    def call(name: str, taking: float) -> None:
        nonlocal now
        now += taking
        calls.append(name)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    measure(
        [lambda: call("e", 2 * seconds)],
        [lambda: call("c", seconds)],
        [1.0],
        seconds=1e9,
        to_beat=[to_beat],
    )
    return "".join(calls)


def test_warms_up_and_alternates_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nine_pairs = "ecce" * 4 + "ec"  # after which the interval is narrow
    assert called(monkeypatch, 0.01) == "eecc" + nine_pairs
    assert called(monkeypatch, 1.0) == "ec" + nine_pairs, "once is enough where it takes long"


@pytest.mark.parametrize(("to_beat", "rounds"), [(5.0, 1), (3.0, 2), (2.3, 3), (2.1, 9)])
def test_gives_up_a_significantly_slower_candidate(
    to_beat: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(called(monkeypatch, 1.0, to_beat)) == 2 + 2 * rounds


def test_short_calls_have_at_least_three_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(monkeypatch, 0.01, to_beat=100.0) == "eecc" + "ecceec"


def test_one_fast_batch_keeps_a_candidate() -> None:
    calls: list[None] = []

    def call() -> None:
        calls.append(None)

    rounds = measure([call, call], [call, call], [0.5, 0.5], seconds=0.0, to_beat=[1e9, 0.0])
    assert len(rounds) == 3


def test_passes_start_with_a_warm_up() -> None:
    calls: list[int] = []
    times = passes([lambda: calls.append(1), lambda: calls.append(2)], seconds=0.0)
    assert calls == [1, 2, 1, 2]
    assert [len(one) for one in times] == [2]
