"""Tests of a built model in one file, on a machine that did not build it."""

import io
from pathlib import Path

import pytest

pytest.importorskip("transformers", minversion="5")

from cpuaccel.integrations.tasks import load_classifier
from cpuaccel.integrations.workers.packed import unpack_built, write_built
from tests.caches import use_cache
from tests.integrations.tasks.test_tasks import save


def test_another_machine_restores_what_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    model = save(tmp_path / "model", "bert-text", num_labels=2)
    write_built("classify", model, ["onednn"], archive)
    use_cache(tmp_path / "cache of another machine", monkeypatch)
    folder = tmp_path / "unpacked"
    unpack_built(archive.getvalue(), folder)
    assert load_classifier(folder).report.not_restored == ""
