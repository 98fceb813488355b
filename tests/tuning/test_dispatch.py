from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.decisions.result import CandidateStatus, Row, Rule
from cpuaccel.tuning.dispatch import find_rule
from cpuaccel.tuning.workers.timing import ratios
from cpuaccel.tuning.workload import Shape

EVEN = (1 / 3, 1 / 3, 1 / 3)


def row(name: str, *seconds: float, rounds: int = 9, noise: float = 0.0) -> Row:
    """A candidate with these seconds for each batch, where eager takes 10 s."""
    measured = tuple(
        tuple((10.0, s * (1 + noise * (-1) ** n)) for s in seconds) for n in range(rounds)
    )
    return Row(
        candidate=Candidate((name,), "float32"),
        status=CandidateStatus.MEASURED,
        speedup=Speedup.from_ratios(ratios(measured, [1 / len(seconds)] * len(seconds))),
        rounds=measured,
        weights=EVEN,
    )


LENGTHS = (Shape(1, 32, 0.0), Shape(1, 128, 0.0), Shape(1, 512, 0.0))
PADDINGS = (Shape(8, 128, 0.0), Shape(8, 128, 0.1), Shape(8, 128, 0.7))


def found(*rows: Row, shapes: tuple[Shape, ...] = LENGTHS) -> Rule | None:
    return find_rule(rows[0], rows, shapes)


def test_dispatches_by_length_between_two_candidates() -> None:
    rule = found(row("short", 1, 1, 6), row("long", 3, 3, 2))
    assert rule is not None
    assert (rule.axis, rule.bound, rule.low.name, rule.high.name) == (
        "length",
        320,
        "short",
        "long",
    )
    assert rule.gain == 2.0
    assert rule.choose(Shape(4, 320, 0.9)) == rule.low
    assert rule.choose(Shape(4, 321, 0.0)) == rule.high


def test_dispatches_by_padding() -> None:
    rule = found(row("dense", 1, 1, 4), row("packed", 2, 2, 1), shapes=PADDINGS)
    assert rule is not None
    assert (rule.axis, rule.low.name, rule.high.name) == ("padding", "dense", "packed")
    assert 0.1 < rule.bound < 0.7
    assert str(rule) == "up to padding 40%: dense in float32; above: packed in float32"


def test_no_dispatch_for_a_small_gain() -> None:
    assert found(row("short", 1, 1, 1.03), row("long", 3, 3, 1)) is None
    assert found(row("short", 1, 1, 1), row("long", 3, 3, 3)) is None


def test_no_dispatch_for_a_gain_within_the_noise() -> None:
    noisy = row("long", 3, 3, 2.5, noise=0.9)
    assert found(row("short", 1, 1, 3), noisy) is None


def test_no_dispatch_to_a_candidate_with_few_rounds() -> None:
    assert found(row("short", 1, 1, 6), row("long", 3, 3, 2, rounds=2)) is None
