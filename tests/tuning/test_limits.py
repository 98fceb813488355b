"""Candidates and searches end at their limits of time and memory, or when they crash."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.tuning.auto import optimize_auto
from cpuaccel.tuning.decisions.result import CandidateStatus
from cpuaccel.tuning.progress import Progress
from cpuaccel.tuning.request import Request
from tests.fake_backends import batch
from tests.patience import stretched
from tests.tuning.conftest import Install
from tests.tuning.models import IDS, Waiting
from tests.tuning.results import rows, tuning


def test_misbehaving_plugins_are_reported(install: Install, encoder: torch.nn.Module) -> None:
    install("exits", "segfaults", "leaks", "leaves", "wrong", "nan", "dies_later", "jit")
    # Each of them ends by itself: a limit that a busy machine reaches would hide how.
    fast = cpuaccel.optimize(
        encoder,
        "auto",
        example_inputs=batch(),
        budget=stretched(500),
        time_limit=stretched(500),
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
        "the process was ended by SIGSEGV during the build",
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


def test_a_hang_ends_at_its_limit_and_the_search_goes_on(
    install: Install, encoder: torch.nn.Module
) -> None:
    install("hangs", "leaves")
    limit = round(stretched(6))
    fast = cpuaccel.optimize(
        encoder, "auto", example_inputs=batch(), budget=stretched(500), time_limit=limit
    )
    found = rows(fast)
    assert (found["hangs"].status, found["hangs"].reason) == (
        "timed out",
        f"timed out after {limit} s during the build",
    )
    # On a busy machine it may reach the limit as well.
    assert found["leaves"].status in ("refused", "timed out")
    assert tuning(fast).winner.name == "eager"


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
    assert "a longer budget may finish 1 that timed out" in str(fast.report)


def test_a_longer_budget_searches_again(
    install: Install, encoder: torch.nn.Module, cache: Path
) -> None:
    install("faithful")
    for number, budget in enumerate((stretched(60), stretched(61)), start=1):
        fast = cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=budget)
        assert tuning(fast).source == "search"
        assert len(list(cache.glob("*.toml"))) == number
    fast = cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=budget)
    assert tuning(fast).source != "search"


def test_a_search_that_had_no_time_to_measure_is_not_kept(
    install: Install, encoder: torch.nn.Module, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("hangs_holding_the_lock")
    for _ in range(2):
        fast = cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=4, time_limit=1)
        assert tuning(fast).source == "search"
    assert list(cache.glob("*.toml")) == []
    assert "searches again" in caplog.text


def test_a_budget_that_ends_before_the_first_candidate_is_the_reason(
    install: Install, encoder: torch.nn.Module
) -> None:
    install("faithful")
    fast = cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=0.001)
    assert "the budget ended before any of" in tuning(fast).why


def test_the_budget_ends_the_search(install: Install, encoder: torch.nn.Module) -> None:
    install("hangs", "faithful", "jit")
    fast = cpuaccel.optimize(encoder, "auto", example_inputs=batch(), budget=4, time_limit=600)
    tried = {str(row.candidate) for row in tuning(fast).rows}
    reasons = {one.name: one.reason for one in tuning(fast).not_tried}
    reason = "the budget of 4 s ended before it was tried; its parts promise "
    left = {name for name, given in reasons.items() if given.startswith(reason)}
    assert left
    assert left.isdisjoint(tried)
    assert {"hangs in float32", "jit in float32"} <= tried | left
    assert tuning(fast).unfinished_budget == 4
    # A hang is ended with the budget, long before its own limit.
    assert all(row.tried_seconds < stretched(60) for row in tuning(fast).rows)


def test_a_slow_build_is_paused_and_resumed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpuaccel.tuning.budget.SHORTEST_BUILD_SLICE", 2.0)
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
    assert slow.tried_seconds > 3
