import pytest

from tests.required import NEEDS, STACKS, Skips, names_unmet_facts, unmet


def skipped(node: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=node,
        location=(node.partition("::")[0], 1, ""),
        keywords={},
        outcome="skipped",
        longrepr=("a file", 1, "Skipped: no engine"),
        when="setup",
    )


@pytest.mark.parametrize(
    "fact", ["pytest>=8", "no a-package-that-nobody-has", "cores: 1", "path: tests/core"]
)
def test_facts_that_hold(fact: str) -> None:
    assert unmet((fact,)) == ()


@pytest.mark.parametrize(
    "fact",
    [
        "pytest<2",
        "a-package-that-nobody-has",
        "no pytest",
        "flag: sse9 sse10",
        "vendor: Nobody",
        "cores: 100000",
        "path: tests/no-such-folder",
        "never",
    ],
)
def test_facts_that_do_not_hold(fact: str) -> None:
    assert unmet(("pytest>=8", fact)) == (fact,)


def test_a_skip_without_an_unmet_fact_is_noted() -> None:
    skips = Skips()
    skips.pytest_runtest_logreport(skipped("tests/core/test_pipeline.py::test_order"))
    skips.pytest_runtest_logreport(
        skipped("tests/plugins/test_onnxruntime.py::TestContract::test_outputs[bfloat16]")
    )
    assert skips.unexplained == ["tests/core/test_pipeline.py::test_order: Skipped: no engine"]


def test_every_fact_can_be_evaluated() -> None:
    for facts in (*STACKS.values(), *(facts for _, facts in NEEDS)):
        assert set(unmet(facts)) <= {*facts}


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Skipped: needs torch>=99", True),
        ("Skipped: needs torch>=99, flag: no-such-flag", True),
        ("Skipped: needs torch>=1", False),
        ("Skipped: needs torch>=99, torch>=1", False),
        ("Skipped: needs patience and luck", False),
        ("Skipped: no engine", False),
    ],
)
def test_reasons_that_name_facts(reason: str, expected: bool) -> None:
    assert names_unmet_facts(reason) is expected
