from pathlib import Path

import pytest

import cpuaccel
from cpuaccel.planning.default import default_pipeline
from tests.cli.conftest import Run


def test_it_prints_the_plan(run: Run) -> None:
    ran = run("explain", "config:bert-tiny", "--backends", "jit", "--dtype", "float32")
    assert ran.code == 0
    assert "pipeline  jit, dtype float32" in ran.out
    assert "jit (module -> script): yes" in ran.out


def test_the_default_pipeline(run: Run) -> None:
    data = run("explain", "config:bert-tiny", "--json").data
    assert data["pipeline"] == str(default_pipeline(cpuaccel.host()))


def test_as_json_with_a_pipeline_file(run: Run, pipeline_file: Path) -> None:
    data = run("explain", "config:vit-tiny", "--pipeline", pipeline_file, "--json").data
    assert data["model"] == "config:vit-tiny"
    assert [(step["backend"], step["ok"]) for step in data["steps"]] == [("jit", True)]


def test_an_unavailable_step_has_a_reason_and_a_remedy(run: Run) -> None:
    verdict = cpuaccel.backends()["ipex"](cpuaccel.backends()["ipex"].Options()).check(
        cpuaccel.host()
    )
    if verdict:
        pytest.skip("IPEX is installed here")
    ran = run("explain", "config:bert-tiny", "--backends", "ipex,jit")
    assert ran.code == 0
    out = " ".join(ran.out.split())
    assert verdict.reason in out
    assert verdict.remedy in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backends", "jit", "--pipeline", "x.toml"), "pass one of them"),
        (("--backends", ","), "at least one name"),
        (("--backends", "jit", "--dtype", "float16"), "Known: float32, bfloat16"),
        (("--backends", "jit,bettertransformer"), "put bettertransformer before jit"),
        (("--pipeline", "no-such-file.toml"), "No such file"),
    ],
)
def test_usage_errors(run: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = run("explain", "config:bert-tiny", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


def test_an_unknown_model_is_a_failure(run: Run) -> None:
    ran = run("explain", "config:nothing", "--backends", "jit", "--json")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("error: unknown model config:nothing")
