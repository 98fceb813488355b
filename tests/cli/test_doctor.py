import cpuaccel
from tests.cli.backends import Absent
from tests.cli.conftest import Run
from tests.conftest import Offer


def test_it_shows_the_host_the_backends_and_advice(run: Run) -> None:
    ran = run("doctor")
    here = cpuaccel.host()
    assert ran.code == 0
    assert here.processor in ran.out
    assert f"torch {here.packages['torch']}" in ran.out
    assert f"{here.cores} usable" in ran.out
    for name in cpuaccel.backends():
        assert name in ran.out
    assert "Advice" in ran.out


def test_as_json(run: Run) -> None:
    data = run("doctor", "--json").data
    here = cpuaccel.host()
    assert data["host"]["isa"] == sorted(here.isa)
    assert data["host"]["packages"]["torch"] == here.packages["torch"]
    assert set(data["backends"]) == set(cpuaccel.backends())
    assert data["backends"]["jit"] == {"ok": True, "reason": "", "remedy": ""}
    assert {item["topic"] for item in data["advice"]} >= {"threads", "instructions", "allocator"}


def test_an_unavailable_backend_has_a_reason_and_a_remedy(run: Run, offer: Offer) -> None:
    offer(Absent)
    verdicts = run("doctor", "--json").data["backends"]
    assert not verdicts["absent"]["ok"]
    for verdict in [verdict for verdict in verdicts.values() if not verdict["ok"]]:
        assert verdict["reason"]
        assert verdict["remedy"]
