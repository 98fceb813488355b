from pathlib import Path

import pytest

import cpuaccel
from tests.artifact.parts import SavedFiles, bert, bert_batch
from tests.fake_backends import batch, encoder


@pytest.fixture(scope="session")
def saved_encoder(tmp_path_factory: pytest.TempPathFactory) -> SavedFiles:
    """A custom module, whose code no artifact contains."""
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    cpuaccel.optimize(encoder(), ["jit"], example_inputs=batch(), strict=True).save(folder)
    return SavedFiles.read(folder)


@pytest.fixture(scope="session")
def saved_bert(tmp_path_factory: pytest.TempPathFactory) -> SavedFiles:
    """A Transformers model."""
    folder = tmp_path_factory.mktemp("saved") / "bert"
    cpuaccel.optimize(bert(), ["jit"], example_inputs=bert_batch(), strict=True).save(folder)
    return SavedFiles.read(folder)


@pytest.fixture
def encoder_folder(saved_encoder: SavedFiles, tmp_path: Path) -> Path:
    return saved_encoder.write(tmp_path / "encoder")


@pytest.fixture
def bert_folder(saved_bert: SavedFiles, tmp_path: Path) -> Path:
    return saved_bert.write(tmp_path / "bert")
