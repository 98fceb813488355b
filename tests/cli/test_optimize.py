import json
from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.cli.console import LABEL_WIDTH, REPORT_WIDTH
from cpuaccel.cli.models.inputs import make_inputs
from cpuaccel.cli.models.load import load_model
from cpuaccel.planning.toml import read_pipeline
from tests.cli.backends import Absent, Faithful
from tests.cli.conftest import Run
from tests.conftest import Offer
from tests.integrations.parts import letters_tokenizer

QUESTIONS = ("config:bert-tiny", "--task", "question-answering")


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_outputs_of_the_script_match_the_model(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    ran = run("optimize", *QUESTIONS, "--backends", "jit", "--output", folder)
    assert ran.code == 0
    assert "jit: applied" in ran.out
    for name in ("pipeline.toml", "report.json", "model.pt"):
        assert str(folder / name) in ran.out
        assert (folder / name).is_file()
    model = load_model("config:bert-tiny", "question-answering")
    inputs = make_inputs(model, 3, 20, padding=0.3)
    script = torch.jit.load(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        start, end = script(**inputs)
        expected = model(**inputs)
    torch.testing.assert_close(start, expected.start_logits)
    torch.testing.assert_close(end, expected.end_logits)


def test_as_json_from_a_pipeline_file(run: Run, tmp_path: Path, pipeline_file: Path) -> None:
    data = run(
        "optimize", *QUESTIONS, "--pipeline", pipeline_file, "--output", tmp_path, "--json"
    ).data
    assert data["scripts"] == [str(tmp_path / "model.pt")]
    assert data["variants"][0]["outcomes"][0]["status"] == "applied"
    assert json.loads((tmp_path / "report.json").read_text())["variants"] == data["variants"]
    assert read_pipeline(tmp_path / "pipeline.toml").steps[0].options == {"freeze": False}


def test_without_a_script_it_shows_how_to_load(run: Run, offer: Offer, tmp_path: Path) -> None:
    offer(Faithful)
    ran = run("optimize", *QUESTIONS, "--backends", "faithful", "--output", tmp_path)
    assert ran.code == 0
    assert f"cpuaccel.load('{tmp_path}'" in ran.out
    assert f"pipeline='{tmp_path / 'pipeline.toml'}'" in ran.out
    assert not list(tmp_path.glob("*.pt"))


def test_nothing_is_written_if_no_step_is_applied(run: Run, offer: Offer, tmp_path: Path) -> None:
    offer(Absent)
    ran = run("optimize", *QUESTIONS, "--backends", "absent", "--output", tmp_path / "fast")
    assert ran.code == 1
    assert "so nothing was written" in ran.err
    assert "an-engine-of-tests is not installed" in ran.err
    assert ran.out == ""
    assert not (tmp_path / "fast").exists()


def test_an_output_that_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    ran = run("optimize", *QUESTIONS, "--backends", "jit", "--output", tmp_path / "taken")
    assert ran.code == 1
    assert "Choose another folder" in ran.err


def test_shapes_of_the_examples(run: Run, tmp_path: Path) -> None:
    shapes = ("--batch-size", "3", "--seq-len", "16,24", "--padding", "0.3")
    ran = run("optimize", *QUESTIONS, "--backends", "jit", *shapes, "--output", tmp_path, "--json")
    (call,) = {variant["inputs"] for variant in ran.data["variants"]}  # one serves both lengths
    assert "int64[3, 16]" in call
    ran = run("optimize", "config:vit-tiny", "--seq-len", "16", "--output", tmp_path)
    assert ran.code == 2
    assert "takes images of a fixed size" in ran.err


def test_the_report_is_wrapped_without_losing_words(run: Run, offer: Offer, tmp_path: Path) -> None:
    offer(Faithful)
    arguments = ("optimize", *QUESTIONS, "--backends", "faithful", "--output", tmp_path)
    lines = run(*arguments).out.partition("\nWritten")[0].splitlines()
    assert max(map(len, lines)) <= REPORT_WIDTH
    assert any(line.startswith(" " * LABEL_WIDTH) for line in lines)
    words = " ".join(lines).split()
    for variant in json.loads((tmp_path / "report.json").read_text())["variants"]:
        assert " ".join(variant["inputs"].split()) in " ".join(words)
        assert " ".join(variant["domain"].split()) in " ".join(words)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    load_model("config:bert-tiny", "question-answering").save_pretrained(folder)  # type: ignore[operator]
    letters_tokenizer().save_pretrained(folder)
    return folder


def test_the_tokenizer_is_saved_beside_the_model(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    fast = tmp_path / "fast"
    for _ in range(2):  # the second replaces the folder with the tokenizer's files
        ran = run("optimize", checkpoint, "--backends", "jit", "--output", fast)
        assert ran.code == 0, ran.err
    assert str(fast / "tokenizer.json") in ran.out
    assert "tokenizer.json" in (fast / "SHA256SUMS").read_text()
    text = "one two three"
    expected = transformers.AutoTokenizer.from_pretrained(checkpoint)(text)
    assert transformers.AutoTokenizer.from_pretrained(fast)(text) == expected
    (fast / "tokenizer.json").write_text("{}")
    with pytest.raises(cpuaccel.CpuaccelError, match=r"tokenizer\.json was changed"):
        cpuaccel.load(fast)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    model = load_model("config:bert-tiny")
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=make_inputs(model, 2, 8))
    with pytest.raises(cpuaccel.CpuaccelError, match="has no file of a tokenizer"):
        fast.save(tmp_path / "fast", tokenizer=tmp_path)
    assert not (tmp_path / "fast").exists()
