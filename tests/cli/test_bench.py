import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cpuaccel.cli.bench import table as bench_table
from cpuaccel.cli.bench.calls import CallBench
from cpuaccel.cli.models.cases import make_cases
from cpuaccel.cli.models.load import load_model
from cpuaccel.pipeline import Pipeline
from cpuaccel.plugin.host import Host, host
from tests.cli.backends import Absent, Brittle
from tests.cli.conftest import Run
from tests.conftest import Offer, Python
from tests.interruption import interrupt_at, interrupt_bench_at

TINY = (
    "bench",
    "config:bert-tiny",
    "--seq-len",
    "16",
    "--batch-size",
    "2",
    "--rounds",
    "2",
    "--threads",
    "1",
)


ONCE = ("--backends", "jit", "--rounds", "1", "--threads", "1", "--json")
MANY = ",".join(map(str, range(1, 41)))
needs_full_disk = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no /dev/full"
)
HAS_BF16 = dataclasses.replace(host(), isa=frozenset({"amx_bf16"}), bf16_speed=4.0)


def by_pipeline(data: Any) -> dict[str, Any]:
    return {row["pipeline"]: row for row in data["results"]}


def test_measures_every_pipeline_and_eager_in_every_case(run: Run, pipeline_file: Path) -> None:
    threads = torch.get_num_threads()
    ran = run(
        *("bench", "config:bert-tiny", "--backends", "jit", "--pipeline", pipeline_file),
        *("--batch-size", "1,3", "--seq-len", "8,16", "--padding", "0.5"),
        *("--rounds", "2", "--threads", "1", "--json"),
    )
    assert ran.code == 0
    rows = ran.data["results"]
    assert [(row["batch_size"], row["seq_len"], row["pipeline"]) for row in rows] == [
        (batch, length, name)
        for batch in (1, 3)
        for length in (8, 16)
        for name in ("eager", "jit", str(pipeline_file))
    ]
    for row in rows:
        assert row["rounds"] == 2
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["error"] <= 1e-4
        assert row["status"] == ("eager" if row["pipeline"] == "eager" else "applied")
        assert row["ratio"] is None or row["ratio"]["pairs"] == 2
    assert ran.data["threads"] == 1
    assert torch.get_num_threads() == threads
    assert "timing 3 x 16" in ran.err


def test_the_table(run: Run) -> None:
    ran = run(*TINY, "--backends", "jit")
    assert ran.code == 0
    eager, jit = [line.split() for line in ran.out.splitlines() if line.endswith(("eager  ", "ed"))]
    assert eager[:6] == ["float32", "2", "x", "16", "eager", eager[5]]
    assert jit[0] == "jit"
    assert jit[-1] == "applied"
    assert "Pipelines not fully applied" not in ran.out


def test_marks_pipelines_with_skipped_steps(run: Run, offer: Offer) -> None:
    offer(Absent)
    arguments = (*TINY, "--backends", "absent,jit", "--backends", "absent")
    rows = by_pipeline(run(*arguments, "--json").data)
    assert rows["absent,jit"]["status"] == "partly applied"
    assert rows["absent"]["status"] == "not applied"
    shown = run(*arguments).out
    assert "PARTLY APPLIED" in shown
    assert "NOT APPLIED" in shown
    assert "absent: skipped. an-engine" in shown.partition("Pipelines not fully applied")[2]


def test_reports_calls_that_the_original_served(run: Run, offer: Offer) -> None:
    offer(Brittle)
    ran = run(
        *("bench", "config:bert-tiny", "--backends", "brittle", "--batch-size", "2,5"),
        *("--seq-len", "16", "--rounds", "2", "--threads", "1", "--json"),
    )
    statuses = {
        row["batch_size"]: (row["status"], row["notes"])
        for row in ran.data["results"]
        if row["pipeline"] == "brittle"
    }
    assert statuses[2] == ("applied", [])
    assert statuses[5][0] == "partly applied"
    assert "the original served 4 calls: RuntimeError" in statuses[5][1][0]


def test_bfloat16_error_is_relative_to_float32_and_ratio_to_bfloat16(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpuaccel.planning.plan.host", lambda: HAS_BF16)
    done = bench(model, ["float32", "bfloat16"], HAS_BF16, "jit")
    (eager32, jit32, eager16, jit16) = done.results
    assert (eager32.error, eager32.ratio, eager16.ratio) == (0.0, None, None)
    assert jit32.error is not None
    assert jit32.error <= 1e-4
    for result in (eager16, jit16):
        assert result.error is not None
        assert 1e-4 < result.error < 5e-2
    assert [r.status for r in done.results] == ["eager", "applied"] * 2
    assert done.fastest is not None
    assert done.fastest[0] in (jit32, jit16)


def test_does_not_run_emulated_bfloat16(
    model: torch.nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = dataclasses.replace(HAS_BF16, isa=frozenset(), bf16_speed=0.1)
    results = bench(model, ["bfloat16"], lacking, "jit").results
    assert [r.status for r in results] == ["not run", "not run"]
    assert all(r.median_ms is None and "Use dtype=float32" in r.notes[0] for r in results)
    run = {"model": "m", "processor": "p", "torch": "2", "threads": 1, "padding": 0.5}
    bench_table.show({**run, "interrupted": False}, results, {})
    shown = capsys.readouterr().out
    assert shown.count("NOT RUN") == 2
    assert "Use dtype=float32" in shown


def test_the_time_limit_ends_the_rounds(model: torch.nn.Module) -> None:
    done = bench(model, ["float32"], HAS_BF16, "jit", rounds=1000, seconds=0.0)
    assert [r.rounds for r in done.results] == [1, 1]
    assert all(r.p95_ms == r.median_ms for r in done.results)


def test_images_and_audio(run: Run) -> None:
    image = run("bench", "config:vit-tiny", *ONCE).data
    assert by_pipeline(image)["jit"]["seq_len"] is None
    audio = run(
        *("bench", "config:wav2vec2-tiny", *ONCE),
        *("--batch-size", "2", "--seq-len", "25", "--padding", "0.25"),
    ).data
    assert by_pipeline(audio)["jit"]["status"] == "applied"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("config:bert-tiny", "--backends", "jit", "--batch-size", "0"), "numbers >= 1"),
        (("config:bert-tiny", "--backends", "jit", "--seq-len", "x"), "numbers >= 1"),
        (("config:bert-tiny", "--backends", "jit", "--dtype", "float16"), "Known: float32"),
        (("config:bert-tiny", "--backends", "jit", "--padding", "1"), "0.99"),
        (("config:vit-tiny", "--backends", "jit", "--seq-len", "8"), "takes images"),
        (("demo", "--padding", "0.5"), "real text"),
        (("config:bert-tiny", "--backends", "jit", "--backends", "jti"), "Did you mean 'jit'?"),
    ],
)
def test_usage_errors(run: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = run("bench", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


def test_reports_a_length_that_the_model_does_not_support(run: Run) -> None:
    ran = run("bench", "config:bert-tiny", "--backends", "jit", "--seq-len", "16,600")
    assert ran.code == 1
    assert "8 x 600" in ran.err
    assert "Choose another --seq-len" in ran.err


def test_ctrl_c_prints_the_finished_results() -> None:
    command = [
        *(sys.executable, "-m", "cpuaccel", "bench", "config:bert-tiny", "--backends", "jit"),
        *("--batch-size", MANY, "--seq-len", "8", "--rounds", "50", "--threads", "1", "--json"),
    ]
    out, _ = interrupt_at("timing 2 x 8", command)
    data = json.loads(out)
    assert data["interrupted"]
    assert {1} <= {row["batch_size"] for row in data["results"]} < set(range(1, 41))


def test_an_interrupted_benchmark_prints_its_table(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_bench_at("timing 2 x 8", monkeypatch)
    ran = run(
        *("bench", "config:bert-tiny", "--backends", "jit", "--batch-size", "1,2,3"),
        *("--seq-len", "8", "--rounds", "1", "--threads", "1"),
    )
    assert ran.code == 130
    assert "Traceback" not in ran.err
    assert "1 x 8" in ran.out
    assert "3 x 8" not in ran.out
    assert "Interrupted" in ran.out


@pytest.fixture
def model() -> torch.nn.Module:
    return load_model("config:bert-tiny")


def bench(
    model: torch.nn.Module,
    dtypes: list[str],
    on: Host,
    *backends: str,
    rounds: int = 2,
    seconds: float = 60.0,
) -> CallBench:
    made = CallBench(
        model,
        {name: Pipeline.from_steps([name]) for name in backends},
        make_cases("trained", model, [2], [16], 0.5),
        dtypes,
        host=on,
        rounds=rounds,
        seconds=seconds,
        threads=1,
        progress=lambda share, doing: None,
    )
    made.run()
    return made


UNWRITABLE = "cannot write the results to stdout: No space left on device."
BRIEF = (
    *("bench", "config:bert-tiny", "--backends", "jit", "--rounds", "1"),
    *("--batch-size", "1", "--seq-len", "8", "--threads", "1"),
)


@needs_full_disk
def test_prints_to_stderr_if_stdout_cannot_be_written(python: Python) -> None:
    code = """
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
from cpuaccel.cli.main import main
main(sys.argv[1:])
"""
    done = python(code, *BRIEF, "--json", check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert '"median_ms"' in done.stderr
    assert UNWRITABLE in " ".join(done.stderr.split())


@needs_full_disk
def test_prints_json_to_stderr_if_the_table_cannot_be_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        ran = run(*BRIEF)
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    assert '"median_ms"' in ran.err
    assert UNWRITABLE in " ".join(ran.err.split())
