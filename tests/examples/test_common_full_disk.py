"""A disk that is full in the middle of a run, or at its end, and continuing after it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from tests.disks import fill, small_disk
from tests.examples.conftest import EXAMPLES, Example
from tests.examples.questions import write_questions

SCRIPT = "question_answering/run_qa.py"
RESULTS = ("predictions.json", "nbest_predictions.json")


@pytest.fixture
def options(tiny_qa_model: Path, tmp_path: Path) -> Sequence[object]:
    """Options for 100 windows in 25 chunks."""
    data = write_questions(tmp_path / "data.json", 100)
    return [
        *("--model_name_or_path", tiny_qa_model, "--validation_file", data, "--do_eval"),
        *("--max_seq_length", 48, "--doc_stride", 8, "--per_device_eval_batch_size", 1),
    ]


@pytest.mark.parametrize(
    ("room", "chunks"), [(40 * 1024, range(1, 25)), (112 * 1024, [25])], ids=["chunks", "results"]
)
def test_finished_chunks_are_kept_and_continued(
    example: Example, options: Sequence[object], tmp_path: Path, room: int, chunks: Sequence[int]
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        filling = fill(disk, leaving=room)
        output, whole = disk / "output", tmp_path / "whole"
        stopped = example(SCRIPT, *options, "--output_dir", output)
        assert stopped.code == 1, stopped.err
        assert "can't be written: No space left on device. Free some space" in stopped.err
        assert "Traceback" not in stopped.err
        kept = len(list((output / "eval_partial").glob("chunk-*.npz")))
        assert kept in chunks
        assert not list(output.rglob("*.tmp"))

        filling.unlink()
        done = example(SCRIPT, *options, "--output_dir", output)
        assert done.code == 0, done.err
        assert f"continuing after {4 * kept} of 100 finished windows" in done.err
        done = example(SCRIPT, *options, "--output_dir", whole)
        assert done.code == 0, done.err
        for name in RESULTS:
            assert (output / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_only_the_summary_cannot_be_printed(options: Sequence[object], tmp_path: Path) -> None:
    output = tmp_path / "output"
    command = [sys.executable, EXAMPLES / SCRIPT, *options, "--output_dir", output]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            list(map(str, command)), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1, done.stderr
    assert "error: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    for name in (*RESULTS, "eval_results.json"):
        assert json.loads((output / name).read_text())
