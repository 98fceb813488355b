"""The text and the JSON of a report."""

import json

from cpuaccel.report import CallKey, Difference, Fidelity, Outcome, Report, Status, VariantReport
from cpuaccel.timing import Ratio

APPLIED = Outcome("jit", Status.APPLIED, evidence={"graph_nodes": 12}, seconds=1.5, bytes=10)
SKIPPED = Outcome("ipex", Status.SKIPPED, "it is not installed", "Install it")
FIDELITY = Fidelity(
    1e-4,
    (
        Difference("example", "logits", 2e-6, 1e-6),
        Difference("batch", "logits", 4e-6, 3e-6),
        Difference("batch", "pooled", 9e-6, 2e-6),
    ),
    frozen=("length",),
)


def example_report() -> Report:
    report = Report("ipex,jit", "float32", (SKIPPED,))
    report.variants.append(
        VariantReport("x: float32[1, 2]", (SKIPPED, APPLIED), FIDELITY, Ratio(2.0, 1.9, 2.1, 7))
    )
    for _ in range(3):
        report.count(CallKey.OPTIMIZED)
    report.count(CallKey.NAN, "NaN in the output")
    return report


def test_the_text_of_a_report_has_a_line_for_each_fact() -> None:
    assert str(example_report()).splitlines() == [
        "pipeline  ipex,jit, dtype float32",
        "inputs    x: float32[1, 2]",
        "step      ipex: skipped. it is not installed. Install it.",
        "step      jit: applied in 1.50 s (graph nodes 12)",
        "fidelity  largest difference 4e-06 in logits, 3e-06 of its magnitude (tolerance 0.0001; "
        "2 probes; frozen: length)",
        "speed     2.00x [1.90, 2.10] (short measurement; see cpuaccel bench)",
        "calls     3 optimized, 1 fallback:nan (NaN in the output)",
    ]


def test_before_the_first_call_the_text_has_the_planned_outcomes() -> None:
    waiting = Report("ipex,jit", "float32", (SKIPPED,))
    assert waiting.outcomes == (SKIPPED,)
    assert waiting.applied == ()
    assert str(waiting).splitlines() == [
        "pipeline  ipex,jit, dtype float32",
        "step      ipex: skipped. it is not installed. Install it.",
        "waiting   for the first call, since there were no example_inputs",
    ]


def test_a_report_has_the_outcomes_of_its_first_variant() -> None:
    report = example_report()
    assert report.outcomes == (SKIPPED, APPLIED)
    assert report.applied == ("jit",)


def test_the_worst_output_has_the_largest_relative_difference() -> None:
    assert FIDELITY.worst == Difference("batch", "logits", 4e-6, 3e-6)
    empty = Fidelity(1e-4, ())
    assert empty.worst is None
    assert str(empty) == "no tensors to compare"


def test_the_text_of_an_outcome_omits_what_is_empty() -> None:
    assert str(Outcome("jit", Status.FAILED, "it broke")) == "jit: failed. it broke."
    assert str(Outcome("jit", Status.APPLIED, seconds=0.5)) == "jit: applied in 0.50 s"


def test_a_report_converts_to_json() -> None:
    data = json.loads(json.dumps(example_report().to_dict()))
    assert data["pipeline"] == "ipex,jit"
    assert data["planned"][0]["status"] == "skipped"
    (variant,) = data["variants"]
    assert [outcome["step"] for outcome in variant["outcomes"]] == ["ipex", "jit"]
    assert variant["outcomes"][1]["evidence"] == {"graph_nodes": 12}
    assert variant["fidelity"]["frozen"] == ["length"]
    assert variant["speed"]["median"] == 2.0
    assert data["calls"] == {"optimized": 3, "fallback:nan": 1}
    assert data["fallbacks"] == {"fallback:nan": "NaN in the output"}


def test_the_text_of_a_slow_variant_says_so() -> None:
    variant = VariantReport("x", (APPLIED,), FIDELITY, Ratio(0.6, 0.58, 0.63, 7))
    assert str(variant).splitlines()[-1] == (
        "speed     0.60x [0.58, 0.63] (slower than the original on these inputs; short "
        "measurement; see cpuaccel bench)"
    )


def test_the_text_of_fidelity_names_what_was_not_probed() -> None:
    fidelity = Fidelity(1e-4, FIDELITY.differences, unprobed=("length",))
    assert "2 probes; not varied, since the original raises: length)" in str(fidelity)
