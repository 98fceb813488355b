"""Ctrl-C in the middle of a run, and continuing after it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from tests.examples.conftest import EXAMPLES, Example
from tests.examples.questions import write_questions
from tests.interruption import interrupt_at

SCRIPT = "question_answering/run_qa.py"


def test_an_interrupted_run_continues(
    example: Example, tiny_qa_model: Path, tmp_path: Path
) -> None:
    data = write_questions(tmp_path / "data.json", 200)
    options = [
        *("--model_name_or_path", tiny_qa_model, "--validation_file", data, "--do_eval"),
        *("--max_seq_length", 48, "--doc_stride", 8, "--per_device_eval_batch_size", 1),
        "--jit_mode_eval",
    ]
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    command = [sys.executable, EXAMPLES / SCRIPT, *options, "--output_dir", interrupted]
    process = subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = interrupted / "eval_partial"
    while not (partial / "chunk-00001.npz").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    kept = len(list(partial.glob("chunk-*.npz")))
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert f"interrupted: {kept} finished chunks are kept in {partial}" in err
    assert "run the same command again" in err
    assert 2 <= kept < 50
    assert {path.suffix for path in partial.iterdir()} == {".npz", ".json"}
    assert [path.name for path in interrupted.iterdir()] == ["eval_partial"]

    done = example(SCRIPT, *options, "--output_dir", interrupted)
    assert done.code == 0, done.err
    assert f"continuing after {4 * kept} of 200 finished windows" in done.err
    assert not partial.exists()
    done = example(SCRIPT, *options, "--output_dir", whole)
    assert done.code == 0, done.err
    for name in ("predictions.json", "nbest_predictions.json"):
        assert (interrupted / name).read_bytes() == (whole / name).read_bytes()


def test_an_interruption_during_imports() -> None:
    command = [sys.executable, "-v", str(EXAMPLES / SCRIPT), "--help"]
    _, err = interrupt_at("import 'torch.", command)
    assert "interrupted\n" in err
