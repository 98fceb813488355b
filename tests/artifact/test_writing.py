import hashlib
import json
import logging
import os
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch

import cpuaccel
from cpuaccel.planning.toml import read_pipeline
from tests.artifact.parts import SUMS, bert, bert_batch, needs_torch_2
from tests.conftest import Offer
from tests.fake_backends import Faithful, batch, encoder
from tests.required import requires

FILES = [
    "pipeline.toml",
    "report.json",
    "artifact.json",
    "weights.safetensors",
    "examples.safetensors",
]


def test_every_file_is_written(tmp_path: Path, offer: Offer) -> None:
    offer(Faithful)
    fast = cpuaccel.optimize(encoder(), ["faithful", "jit"], example_inputs=batch(), strict=True)
    fast(input_ids=batch()["input_ids"])
    written = fast.save(tmp_path / "new" / "folder")
    assert [path.name for path in written] == [*FILES, "model.pt", "model-1.pt", SUMS]
    assert sorted(written) == sorted((tmp_path / "new" / "folder").iterdir())
    assert read_pipeline(written[0]).steps == (cpuaccel.Step("faithful"), cpuaccel.Step("jit"))
    assert json.loads(written[1].read_text())["pipeline"] == "faithful,jit"


def test_every_file_is_listed_with_its_checksum(tmp_path: Path) -> None:
    *written, sums = cpuaccel.optimize(encoder(), ["jit"], example_inputs=batch()).save(tmp_path)
    assert sums.read_text().splitlines() == [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in written
    ]


def test_the_record_describes_model_settings_calls_and_host(tmp_path: Path) -> None:
    fast = cpuaccel.optimize(
        encoder(), ["jit"], example_inputs=batch(), tolerance=0.125, strict=True
    )
    fast.save(tmp_path)
    record = json.loads((tmp_path / "artifact.json").read_text())
    assert record["model"]["name"] == "MaskedEncoder"
    assert record["settings"] == {
        "tolerance": 0.125,
        "strict": True,
        "keep_original": True,
        "freeze_values": False,
        "audit": True,
    }
    assert [call["signature"] for call in record["calls"]] == [
        "input_ids: int64[2, 12], attention_mask: int64[2, 12]"
    ]
    assert record["made"]["packages"]["torch"] == cpuaccel.host().packages["torch"]
    assert record["made"]["isa"].split() == sorted(cpuaccel.host().isa)
    assert record["made"]["plugins"] == {"jit": cpuaccel.plugin_host().origins["jit"]}


def test_weights_and_outputs_are_stored_exactly(tmp_path: Path) -> None:
    model = encoder()
    cpuaccel.optimize(model, ["jit"], example_inputs=batch()).save(tmp_path)
    weights = safetensors.torch.load((tmp_path / "weights.safetensors").read_bytes())
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[n], t) for n, t in model.state_dict().items())
    stored = safetensors.torch.load((tmp_path / "examples.safetensors").read_bytes())
    with torch.no_grad():
        states, pooled = model(**batch())
    assert torch.equal(stored["0/inputs/input_ids"], batch()["input_ids"])
    assert torch.equal(stored["0/answers/0"], states)
    assert torch.equal(stored["0/answers/1"], pooled)


class SharesMemory(torch.nn.Module):
    """Returns one tensor twice, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.linear(x) + y
        return {"hidden": hidden, "again": hidden, "first": hidden[:, 0], "row": hidden[:1]}


@pytest.mark.parametrize("steps", [["jit"], []], ids=["jit", "no step"])
def test_outputs_and_inputs_that_share_memory_are_stored_each(
    tmp_path: Path, steps: list[str]
) -> None:
    model, x = SharesMemory().eval(), torch.randn(2, 4)
    dtype = None if steps else "float32"
    fast = cpuaccel.optimize(model, steps, dtype=dtype, example_inputs={"x": x, "y": x})
    fast.save(tmp_path / "saved")
    stored = safetensors.torch.load((tmp_path / "saved" / "examples.safetensors").read_bytes())
    with torch.no_grad():
        expected = model(x, x)
    assert torch.equal(stored["0/inputs/x"], x)
    assert torch.equal(stored["0/inputs/y"], x)
    for index, output in enumerate(expected.values()):
        assert torch.equal(stored[f"0/answers/{index}"], output)
    loaded = cpuaccel.load(tmp_path / "saved", model=SharesMemory().eval())
    torch.testing.assert_close(dict(loaded(x, x)), expected)


@needs_torch_2
def test_a_transformers_model_is_saved_with_its_configuration(tmp_path: Path) -> None:
    cpuaccel.optimize(bert(), ["jit"], example_inputs=bert_batch()).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["hidden_size"] == 32
    assert not [key for key in config if key.startswith("_") or key.endswith("_implementation")]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    fast = cpuaccel.optimize(encoder(), ["onednn"], example_inputs=batch())
    fast.save(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".pt", ".pkl", ".bin")]


def test_file_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        written = cpuaccel.optimize(encoder(), ["jit"], example_inputs=batch()).save(tmp_path / "a")
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o640}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750


def test_the_saved_pipeline_can_be_passed_to_optimize(tmp_path: Path) -> None:
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
    assert [path.name for path in fast.save(tmp_path)] == [*FILES, SUMS]


@requires("torch>=2.6")
def test_released_weights_are_restored_and_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = encoder()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = cpuaccel.optimize(model, ["onednn"], example_inputs=batch(), keep_original=False)
    with caplog.at_level(logging.WARNING, "cpuaccel"):
        fast.save(tmp_path)
    weights = safetensors.torch.load((tmp_path / "weights.safetensors").read_bytes())
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_saving_before_anything_is_built(tmp_path: Path) -> None:
    fast = cpuaccel.optimize(encoder(), ["jit"])
    with pytest.raises(cpuaccel.ArtifactError, match=r"nothing is built yet\. Pass example_inputs"):
        fast.save(tmp_path)


def test_a_weight_that_safetensors_cannot_store(tmp_path: Path) -> None:
    class Sparse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.eye(3).to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table.to_dense()

    fast = cpuaccel.optimize(Sparse(), ["jit"], example_inputs=torch.ones(3, 3))
    with pytest.raises(
        cpuaccel.ArtifactError,
        match=r"table must be a dense CPU tensor, got Tensor \(torch.sparse_coo",
    ):
        fast.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    fast = cpuaccel.optimize(torch.nn.ReLU(), ["jit"], example_inputs=torch.ones(2, 2))
    with pytest.raises(cpuaccel.ArtifactError, match=r"it is a file\. Choose another folder"):
        fast.save(tmp_path / "file")
    with pytest.raises(cpuaccel.ArtifactError, match="Free disk space, or choose another folder"):
        fast.save(tmp_path / "file" / "below")
