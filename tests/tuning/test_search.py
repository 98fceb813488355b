"""What a search measures, and which candidates it chooses."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.tuning.decisions.result import CandidateStatus
from tests.patience import stretched
from tests.tuning.conftest import Install
from tests.tuning.models import IDS, Waiting
from tests.tuning.results import rows, tuning


def test_chooses_a_significantly_faster_candidate(install: Install) -> None:
    install("short", "slow")
    model = Waiting()
    fast = cpuaccel.optimize(model, "auto", example_inputs=IDS, budget=500, time_limit=500)
    found = rows(fast)
    assert tuning(fast).winner.name in {"short"}
    assert found["short"].status is CandidateStatus.CHOSEN
    short, slow = found["short"].speedup, found["slow"].speedup
    assert short is not None
    assert slow is not None
    assert short.low > 1 > slow.high
    assert slow.pairs < 9, "a hopeless candidate is given up early"
    assert fast.report.calls == {}
    assert torch.equal(fast(**IDS), model(**IDS))  # type: ignore[arg-type]
    assert fast.report.calls == {"optimized": 1}


def test_keeps_eager_if_nothing_is_faster(install: Install, cache: Path) -> None:
    install("slow")
    fast = cpuaccel.optimize(
        Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500, cache=False
    )
    assert not cache.exists(), "cache=False writes no files"
    assert tuning(fast).winner.name == "eager"
    assert tuning(fast).why.startswith("slow in float32 is not significantly faster")
    assert torch.equal(fast(**IDS), IDS["input_ids"] * 2.0)  # type: ignore[arg-type]


def test_falls_back_to_the_runner_up_if_the_winner_fails_here(install: Install) -> None:
    install("short_elsewhere", "short")
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500)
    found = tuning(fast)
    row = rows(fast)["short_elsewhere"]
    if found.rebuilt[0].startswith("short_elsewhere"):  # the winner of the run-off
        assert row.status is CandidateStatus.REFUSED
        assert "RuntimeError: not in this process" in row.reason
        assert found.why.endswith("as fast as eager; faster candidates failed in this process")
    assert found.winner.name == "short"


def test_dispatches_several_shapes_by_length(install: Install, tmp_path: Path) -> None:
    lock = tmp_path / "cpuaccel.lock"
    install("short", "long")
    batches = [{"input_ids": torch.ones(2, n, dtype=torch.long)} for n in (8, 16, 64)]
    fast = cpuaccel.optimize(
        Waiting(), "auto", example_inputs=batches, budget=500, time_limit=500, lock=lock
    )
    rule = tuning(fast).rule
    assert rule is not None
    assert (rule.axis, rule.low.name, rule.high.name) == ("length", "short", "long")
    assert 16 <= rule.bound < 64
    assert rule.gain > 1.03
    assert fast.report.pipeline == "short | long"
    assert f"dispatch  up to length {rule.bound:g}: short in float32; above: long in float32" in (
        str(fast.report)
    )
    for one in batches:
        assert torch.equal(fast(**one), one["input_ids"] * 2.0)  # type: ignore[arg-type]
    assert fast.report.calls == {"optimized": 3}
    assert [v.outcomes[-1].step for v in fast.report.variants] == ["short", "long"]
    with pytest.raises(cpuaccel.ArtifactError, match=r"several \(short \| long\)"):
        fast.save("nowhere")
    again = cpuaccel.optimize(Waiting(), "auto", example_inputs=batches, lock=lock, strict=True)
    kept = tuning(again).rule
    assert kept is not None
    assert (kept.axis, kept.bound, kept.low, kept.high) == (
        *(rule.axis, rule.bound, rule.low, rule.high),
    )
    assert again.report.pipeline == "short | long"


def test_traffic_weights_the_lengths(install: Install) -> None:
    install("long")
    fast = cpuaccel.optimize(
        Waiting(), "auto", example_inputs=IDS, traffic={8: 1, 64: 3}, budget=500, time_limit=500
    )
    found = tuning(fast)
    assert [(s.rows, s.length) for s in found.shapes] == [(2, 8), (2, 64)]
    assert found.weights == (0.25, 0.75)
    speedup = rows(fast)["long"].speedup
    assert speedup is not None
    assert 2 < speedup.median < 4.5  # a quarter of the calls is not faster


def test_compares_the_metric_with_the_originals(install: Install) -> None:
    install("short", "wrong_by_a_little")
    labels = torch.full((2, 8), 2.0)

    def accuracy(outputs: list[object]) -> float:  # a closure, which can't be pickled
        (output,) = outputs
        assert isinstance(output, torch.Tensor)
        return float((output == labels).float().mean())

    fast = cpuaccel.optimize(
        Waiting(),
        "auto",
        example_inputs=IDS,
        budget=stretched(60),
        time_limit=stretched(60),
        metric=accuracy,
        max_drop=0.1,
    )
    found = rows(fast)
    assert tuning(fast).metric == 1.0
    assert found["short"].metric == 1.0
    assert found["wrong_by_a_little"].metric == 0.0
    assert found["wrong_by_a_little"].reason == (
        "the metric is 0, 1 below the original's 1 (max_drop 0.1)"
    )


def test_leaves_out_precisions_that_the_host_does_not_support(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from cpuaccel.plugin.host import host

    old = dataclasses.replace(host(), isa=frozenset(), bf16_speed=0.1)
    monkeypatch.setattr("cpuaccel.tuning.auto.host", lambda: old)
    install("short")
    fast = cpuaccel.optimize(
        Waiting(),
        "auto",
        example_inputs=IDS,
        precisions=("float32", "bfloat16"),
        budget=stretched(40),
        time_limit=stretched(40),
    )
    assert {row.candidate.precision for row in tuning(fast).rows} == {"float32"}
    (left,) = tuning(fast).not_tried
    assert left.name == "bfloat16"
    assert "run at 0.10 times float32's speed" in left.reason


def test_measures_several_processes_for_throughput(install: Install) -> None:
    install("short")
    fast = cpuaccel.optimize(
        Waiting(),
        "auto",
        example_inputs=IDS,
        target="throughput",
        budget=stretched(120),
        time_limit=stretched(120),
    )
    found = tuning(fast)
    cores = cpuaccel.host().cores
    counts = [2**n for n in range(cores.bit_length()) if 2**n <= cores]
    assert [instance.count for instance in found.instances] == counts, found.not_tried
    for instance in found.instances:
        assert instance.threads == cores // instance.count
        assert instance.rows_per_second > 0


def test_a_metric_includes_backends_with_a_wide_tolerance(install: Install) -> None:
    install("coarse")
    fast = cpuaccel.optimize(
        Waiting(), "auto", example_inputs=IDS, budget=stretched(60), cache=False
    )
    assert tuning(fast).winner.name == "eager"
    (left,) = tuning(fast).not_tried
    assert (left.name, left.reason.split(",")[0]) == (
        "coarse",
        "coarse may be off by up to 15%",
    )
    fast = cpuaccel.optimize(
        Waiting(),
        "auto",
        example_inputs=IDS,
        budget=stretched(60),
        metric=lambda outputs: 1.0,
        cache=False,
    )
    assert tuning(fast).winner.name == "coarse"
    assert rows(fast)["coarse"].error == pytest.approx(0.1, rel=1e-3)


def test_searches_for_the_number_of_threads(install: Install) -> None:
    install("short")
    fast = cpuaccel.optimize(
        Waiting(), "auto", example_inputs=IDS, threads="auto", budget=500, time_limit=500
    )
    found = tuning(fast)
    counts = {row.candidate.threads for row in found.rows}
    cores = cpuaccel.host().cores
    assert counts == {None, *(2**n for n in range(cores.bit_length())), cores} - {found.threads}
    assert torch.get_num_threads() == (found.winner.threads or found.threads)
