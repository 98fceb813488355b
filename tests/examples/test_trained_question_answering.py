"""The trained model on questions that it has not seen.

The first 300 questions must give the metrics in ../shared/qa/README.md; a few questions are enough
to compare pipelines and command lines with eager.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

import datasets

from common.arguments import ModelArguments
from question_answering.arguments import QuestionAnsweringArguments
from question_answering.squad import load_questions
from tests.examples.conftest import EXAMPLES, Example
from tests.examples.results import results
from tests.required import BF16, requires, unmet

SCRIPT = "question_answering/run_qa.py"

F1, EXACT_MATCH = 73.179, 61.333


Metrics = tuple[float, float]


def metrics(output: Path) -> Metrics:
    found = results(output)
    return round(found["f1"], 3), round(found["exact_match"], 3)


@pytest.fixture(scope="module")
def few_questions(shared_qa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the first 40 questions as a folder for --dataset_name."""
    file = shared_qa / "squad-v1.1-dev-half.json"
    data = QuestionAnsweringArguments(validation_file=str(file), max_eval_samples=40)
    questions, _ = load_questions(data, ModelArguments(str(shared_qa / "model")), "eval")
    folder = tmp_path_factory.mktemp("data") / "squad"
    datasets.DatasetDict({"validation": questions}).save_to_disk(folder)
    return folder


def command_line(shared_qa: Path, questions: Path, output: Path) -> list[object]:
    return [
        *("--model_name_or_path", shared_qa / "model", "--dataset_name", questions, "--do_eval"),
        *("--max_seq_length", 384, "--doc_stride", 128, "--output_dir", output, "--no_cuda"),
    ]


@pytest.fixture(scope="module")
def eager_metrics(
    example: Example,
    shared_qa: Path,
    few_questions: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Metrics:
    """Evaluate the model without a pipeline on few questions."""
    output = tmp_path_factory.mktemp("eager")
    done = example(SCRIPT, *command_line(shared_qa, few_questions, output))
    assert done.code == 0, done.err
    return metrics(output)


def test_a_pipeline_gives_the_metrics_of_the_model(
    example: Example, shared_qa: Path, tmp_path: Path
) -> None:
    done = example(
        SCRIPT,
        *("--model_name_or_path", shared_qa / "model", "--do_eval", "--output_dir", tmp_path),
        *("--validation_file", shared_qa / "squad-v1.1-dev-half.json"),
        *("--max_eval_samples", 300),
        *("--cpuaccel_backends", "bettertransformer,jit"),
    )
    assert done.code == 0, done.err
    assert metrics(tmp_path) == (F1, EXACT_MATCH)
    found = results(tmp_path)
    assert found.get("cpuaccel_calls_original", 0) == 0, done.err
    for step in ("bettertransformer", "jit"):
        assert found[f"cpuaccel_{step}_applied"] == 1


def test_bettertransformer_alone_gives_the_metrics_of_eager(
    example: Example, shared_qa: Path, few_questions: Path, eager_metrics: Metrics, tmp_path: Path
) -> None:
    done = example(
        SCRIPT,
        *command_line(shared_qa, few_questions, tmp_path / "x"),
        *("--cpuaccel_backends", "bettertransformer"),
    )
    assert done.code == 0, done.err
    assert metrics(tmp_path / "x") == eager_metrics
    assert results(tmp_path / "x")["cpuaccel_bettertransformer_applied"] == 1


@requires(BF16)
def test_bfloat16_comes_close(
    example: Example, shared_qa: Path, few_questions: Path, eager_metrics: Metrics, tmp_path: Path
) -> None:
    done = example(
        SCRIPT,
        *command_line(shared_qa, few_questions, tmp_path / "x"),
        *("--cpuaccel_backends", "bettertransformer,jit", "--bf16_full_eval"),
    )
    assert done.code == 0, done.err
    # One question of 40 is 2.5 points; on all 5,609 the difference is 0.05 in F1 and 0.18 in exact
    # match (docs/benchmarks.md).
    assert metrics(tmp_path / "x") == pytest.approx(eager_metrics, abs=2.6)


def test_command_lines_of_transformers_4_run_unchanged(
    shared_qa: Path, few_questions: Path, eager_metrics: Metrics, tmp_path: Path
) -> None:
    options = [*command_line(shared_qa, few_questions, tmp_path / "x"), "--use_ipex"]
    done = subprocess.run(
        [sys.executable, *map(str, [EXAMPLES / SCRIPT, *options, "--jit_mode_eval"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "x") == eager_metrics
    found = results(tmp_path / "x")
    assert found["cpuaccel_jit_applied"] == 1
    has_ipex = not unmet(("intel-extension-for-pytorch",))
    assert found["cpuaccel_ipex_applied"] == has_ipex
    expected = "applied" if has_ipex else "skipped. intel-extension-for-pytorch "
    assert f"ipex: {expected}" in done.stdout
