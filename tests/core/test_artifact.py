import json
from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.config import read_pipeline
from tests.conftest import Offer
from tests.core.fakes import Faithful, batch, encoder


def test_pipeline_report_and_scripts_are_written(tmp_path: Path, offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(encoder(), ["faithful", "jit"], example_inputs=batch(), strict=True)
    fast(input_ids=batch()["input_ids"])
    written = fast.save(tmp_path / "new" / "folder")
    assert [path.name for path in written] == [
        "pipeline.toml",
        "report.json",
        "model.pt",
        "model-1.pt",
    ]
    assert all(path.is_file() for path in written)
    assert read_pipeline(written[0]).steps == (cpuaccel.Step("faithful"), cpuaccel.Step("jit"))
    assert json.loads(written[1].read_text())["pipeline"] == "faithful,jit"


def test_what_is_saved_is_a_pipeline_to_optimize_by(tmp_path: Path) -> None:
    model = encoder()
    fast = cpuaccel.optimize(
        model, [cpuaccel.Step("jit", freeze=False)], example_inputs=batch(), strict=True
    )
    path, *_ = fast.save(tmp_path)
    again = cpuaccel.optimize(model, pipeline=path, example_inputs=batch(), strict=True)
    assert again.report.outcomes[0].evidence["frozen"] == "no"


def test_without_a_script_there_is_no_model_file(tmp_path: Path, offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch())
    assert [path.name for path in fast.save(tmp_path)] == ["pipeline.toml", "report.json"]


def test_nothing_built_is_nothing_to_save(tmp_path: Path) -> None:
    fast = cpuaccel.optimize(encoder(), ["jit"])
    with pytest.raises(cpuaccel.ArtifactError, match=r"nothing is built yet\. Pass example_inputs"):
        fast.save(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    fast = cpuaccel.optimize(torch.nn.ReLU(), ["jit"], example_inputs=torch.ones(2, 2))
    with pytest.raises(cpuaccel.ArtifactError, match="Choose another folder"):
        fast.save(tmp_path / "file")
