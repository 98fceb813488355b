from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.tuning.auto import optimize_auto
from cpuaccel.tuning.decisions.result import CandidateStatus, Row, Tuning
from cpuaccel.tuning.progress import Progress
from cpuaccel.tuning.request import Request
from tests.fake_backends import batch
from tests.patience import stretched
from tests.tuning.conftest import Install
from tests.tuning.models import Waiting

IDS = {"input_ids": torch.ones(2, 8, dtype=torch.long)}


def tuning(optimized: cpuaccel.OptimizedModel) -> Tuning:
    found = optimized.report.tuning
    assert found is not None
    return found


def rows(optimized: cpuaccel.OptimizedModel) -> dict[str, Row]:
    return {row.candidate.name: row for row in tuning(optimized).rows}


def test_misbehaving_plugins_are_reported(install: Install, encoder: torch.nn.Module) -> None:
    install("exits", "segfaults", "hangs", "leaks", "leaves", "wrong", "nan", "dies_later", "jit")
    limit = round(stretched(15))
    fast = cpuaccel.optimize(
        encoder,
        "auto",
        example_inputs=batch(),
        budget=stretched(500),
        time_limit=limit,
        memory_limit=2**30,
    )
    found = rows(fast)
    reasons = {name: (row.status, row.reason) for name, row in found.items() if row.speedup is None}
    assert reasons["exits"] == (
        "crashed",
        "the process exited with code 7 during the build: no licence",
    )
    assert reasons["segfaults"] == (
        "crashed",
        "SIGSEGV ended the process during the build",
    )
    assert reasons["hangs"] == (
        "timed out",
        f"timed out after {limit} s during the build",
    )
    assert reasons["leaks"][0] == "out of memory"
    assert "GiB during the build, more than the 1.0 GiB allowed" in reasons["leaks"][1]
    assert found["leaks"].peak_bytes > 2**30
    assert reasons["dies_later"] == (
        "crashed",
        "the process exited with code 9 during timing",
    )
    assert reasons["leaves"] == (
        "refused",
        "leaves: failed. it raised SystemExit: this processor is too old. "
        "Leave the step out, or report this",
    )
    assert reasons["wrong"][0] == "refused"
    assert "it changes the outputs: 0 differs by" in reasons["wrong"][1]
    assert "it changes the outputs" in reasons["nan"][1]
    assert found["jit"].speedup is not None
    assert {c.name for c in tuning(fast).chosen} <= {"jit", "eager"}
    # Pipelines with a step that failed are not tried, and listed.
    not_tried = {one.name: one.reason for one in tuning(fast).not_tried}
    assert not_tried["exits,jit in float32"].startswith("exits failed: the process exited")
    answer = fast(**batch())
    assert torch.allclose(answer.states, encoder(**batch()).states, atol=1e-5)  # type: ignore[attr-defined]


def test_ends_a_hang_that_holds_the_interpreter_lock(
    install: Install, encoder: torch.nn.Module
) -> None:
    install("hangs_holding_the_lock")
    limit = round(stretched(6))
    fast = cpuaccel.optimize(
        encoder, "auto", example_inputs=batch(), budget=stretched(500), time_limit=limit
    )
    row = rows(fast)["hangs_holding_the_lock"]
    assert (row.status, row.reason) == (
        "timed out",
        f"timed out after {limit} s during the build",
    )
    assert tuning(fast).winner.name == "eager"
    assert tuning(fast).why == "no candidate could be measured: 1 of 1 timed out"
    assert "Pass a longer budget=" in str(fast.report)


class Stacks(torch.nn.Module):
    """Takes a list of tensors, which no backend does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self.linear(torch.stack(xs))
        return output


def test_inputs_that_are_lists_are_the_reason(install: Install) -> None:
    install("jit", "onednn")
    inputs = ([torch.randn(8), torch.randn(8)],)
    fast = cpuaccel.optimize(Stacks().eval(), "auto", example_inputs=inputs, budget=60)
    assert str(fast.report).splitlines() == [
        "pipeline  (no steps), dtype the model's own",
        "tuning    eager in its own precision: no candidate could be tried: none of the inputs is "
        "a tensor (2 of 2)",
        "rebuilt   the original model; input 'xs' is a list",
    ]


def test_a_longer_budget_searches_again(
    install: Install, encoder: torch.nn.Module, cache: Path
) -> None:
    install("hangs_holding_the_lock")
    for number, budget in enumerate((4, 5), start=1):
        cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=budget, time_limit=1)
        assert len(list(cache.glob("*.toml"))) == number
    cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=5, time_limit=1)
    assert len(list(cache.glob("*.toml"))) == 2


def test_the_budget_ends_the_search(install: Install, encoder: torch.nn.Module) -> None:
    install("hangs", "faithful", "jit")
    fast = cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=4, time_limit=600)
    tried = {str(row.candidate) for row in tuning(fast).rows}
    reasons = {one.name: one.reason for one in tuning(fast).not_tried}
    reason = "the budget of 4 s ended before it was tried"
    left = {name for name, given in reasons.items() if given == reason}
    assert left
    assert left.isdisjoint(tried)
    assert {"hangs in float32", "jit in float32"} <= tried | left
    # A hang is ended with the budget, long before its own limit.
    assert all(row.tried_seconds < stretched(60) for row in tuning(fast).rows)


def test_a_slow_build_is_paused_and_resumed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpuaccel.tuning.budget.SHORTEST_BUILD_SLICE", 5.0)
    monkeypatch.setattr("cpuaccel.tuning.budget.BUILD_SLICE_SHARE", 0.0)
    install("builds_slowly", "short")
    model, doings = Waiting(), list[str]()
    optimized = optimize_auto(
        model,
        IDS,
        Request.from_arguments(model, {"budget": 500, "time_limit": 400}),
        Progress(lambda snapshot: doings.append(snapshot.doing)),
    )
    slow = rows(optimized)["builds_slowly"]
    assert slow.status is CandidateStatus.MEASURED
    assert doings.index("building short in float32") < doings.index(
        "measuring builds_slowly in float32"
    )
    assert doings.count("building builds_slowly in float32") >= 2
    assert slow.tried_seconds > 6


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


def test_keeps_eager_if_nothing_is_faster(install: Install) -> None:
    install("slow")
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=IDS, budget=500, time_limit=500)
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


def test_dispatches_several_shapes_by_length(install: Install) -> None:
    install("short", "long")
    batches = [{"input_ids": torch.ones(2, n, dtype=torch.long)} for n in (8, 16, 64)]
    fast = cpuaccel.optimize(Waiting(), "auto", example_inputs=batches, budget=500, time_limit=500)
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


def test_pickles_a_local_class(install: Install) -> None:
    install("jit")

    class Local(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(x))

    fast = cpuaccel.optimize(
        Local(), "auto", example_inputs=torch.ones(2, 4), budget=500, time_limit=500
    )
    assert rows(fast)["jit"].speedup is not None


class Connection:
    """Can be copied, but not pickled."""

    def __deepcopy__(self, memo: object) -> "Connection":
        return self

    def __reduce__(self) -> str:
        raise TypeError("it holds a connection")


def test_rejects_a_model_that_cannot_be_pickled(install: Install) -> None:
    install("jit")
    model = Waiting()
    model.connection = Connection()
    with pytest.raises(cpuaccel.ModelError) as raised:
        cpuaccel.optimize(model, "auto", example_inputs=IDS)
    assert str(raised.value).startswith(
        "Waiting can't be pickled for the worker processes (TypeError: it holds a connection). "
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
        "its results differ by up to 0.15 by design",
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


MISTAKES = {
    "example_inputs": ({"example_inputs": None}, "needs example_inputs"),
    "no batch": ({"example_inputs": []}, "example_inputs is an empty list"),
    "dtype": ({"dtype": "bfloat16"}, "Pass precisions="),
    "keep_original": (
        {"keep_original": False},
        "keep_original=False can't be used with",
    ),
    "precisions": ({"precisions": ["int3"]}, "dtype must be float32 or bfloat16"),
    "no precision": ({"precisions": []}, "precisions must not be empty"),
    "target": ({"target": "size"}, "target must be 'latency' or 'throughput', got 'size'"),
    "budget": ({"budget": 0}, "budget must be > 0, got 0"),
    "max_drop": ({"max_drop": 0.1}, "max_drop= needs metric="),
    "threads": ({"threads": "all"}, "threads must be a whole number >= 1 or 'auto', got 'all'"),
    "traffic": ({"traffic": {}}, "traffic must have lengths and shares > 0"),
    "traffic and batches": (
        {"traffic": {8: 1.0}, "example_inputs": [IDS, IDS]},
        "traffic= needs one batch, got 2",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_rejects_invalid_arguments(mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    with pytest.raises(cpuaccel.CpuaccelError) as raised:
        cpuaccel.optimize(Waiting(), "auto", **{"example_inputs": IDS, **arguments})  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_rejects_search_arguments_with_a_pipeline() -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="budget= needs"):
        cpuaccel.optimize(Waiting(), ["jit"], budget=3)


def test_cache_false_writes_no_files(install: Install, tmp_path: Path, cache: Path) -> None:
    install("short")
    cpuaccel.optimize(
        Waiting(),
        "auto",
        example_inputs=IDS,
        budget=500,
        time_limit=500,
        cache=False,
    )
    assert not cache.exists()
