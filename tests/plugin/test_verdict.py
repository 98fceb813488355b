from cpuaccel import Verdict


def test_a_yes_is_true() -> None:
    assert Verdict.yes()
    assert str(Verdict.yes()) == "yes"


def test_a_no_is_false_and_shows_reason_and_remedy() -> None:
    verdict = Verdict.no("the engine is not installed", "Install it")
    assert not verdict
    assert str(verdict) == "the engine is not installed. Install it"
    assert str(Verdict.no("it can't be")) == "it can't be"
