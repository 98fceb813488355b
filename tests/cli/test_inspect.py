from pathlib import Path

import pytest

import cpuaccel
from cpuaccel.cli.models.inputs import make_inputs
from cpuaccel.cli.models.load import load_model
from tests.cli.conftest import Run

QUESTIONS = ("config:bert-tiny", "--task", "question-answering")


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    folder = tmp_path / "fast"
    assert run("optimize", *QUESTIONS, "--backends", "jit", "--output", folder).code == 0
    return folder


def test_summary_of_an_artifact(run: Run, folder: Path) -> None:
    ran = run("inspect", folder)
    assert ran.code == 0
    assert "BertForQuestionAnswering" in ran.out
    assert "pipeline  jit" in ran.out
    assert "input_ids: int64[8, 128]" in ran.out
    assert "dtype     the model's own; weights float32" in ran.out
    assert "all match SHA256SUMS" in ran.out
    assert "changed   none (same machine and versions)" in ran.out
    assert f"cpuaccel.load('{folder}'" in ran.out

    data = run("inspect", folder, "--json").data
    assert data["changed"] == []
    assert {*data["files"]} == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}


def test_precisions(run: Run, tmp_path: Path) -> None:
    model = load_model("config:bert-tiny").bfloat16()
    fast = cpuaccel.optimize(
        model, ["jit"], example_inputs=make_inputs(model, 2, 8), dtype="float32"
    )
    fast.save(tmp_path / "fast")
    data = run("inspect", tmp_path / "fast", "--json").data
    assert (data["dtype"], data["weights"]) == ("float32", ["bfloat16"])


def test_a_changed_file(run: Run, folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"other")
    ran = run("inspect", folder)
    assert ran.code == 1
    assert "model.pt was changed" in ran.err
    assert ran.out == ""


def test_an_unknown_backend(run: Run, folder: Path, tmp_path: Path) -> None:
    from tests.artifact.parts import sign

    text = (folder / "pipeline.toml").read_text().replace('"jit"', '"jitt"')
    (folder / "pipeline.toml").write_text(text)
    sign(folder)
    ran = run("inspect", folder)
    assert ran.code == 0
    assert "unknown backend 'jitt'. Did you mean 'jit'?" in ran.out


def test_a_folder_that_is_not_an_artifact(run: Run, tmp_path: Path) -> None:
    ran = run("inspect", tmp_path)
    assert ran.code == 1
    assert "not an artifact, because it has no SHA256SUMS" in ran.err
