"""run_qa.py, each run in its own process: inputs, outputs and errors."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from tests.examples.conftest import WORDS, Example
from tests.examples.results import results

SCRIPT = "question_answering/run_qa.py"

WINDOWS = ("--max_seq_length", 32, "--doc_stride", 8, "--per_device_eval_batch_size", 2)

Flat = list[dict[str, Any]]


def flat(count: int = 12, answered: Callable[[int], bool] = lambda row: True) -> Flat:
    """Make questions on contexts of one or more windows."""
    chance = random.Random(0)
    rows = []
    for row in range(count):
        words = chance.choices(WORDS, k=8 + 5 * row)
        text = " ".join(words[2:4])
        context = " ".join(words)
        answers = (
            {"text": [text], "answer_start": [context.index(text)]}
            if answered(row)
            else {"text": [], "answer_start": []}
        )
        rows.append(
            {"id": str(row), "question": " who was it ?", "context": context, "answers": answers}
        )
    return rows


def nested(rows: Flat) -> dict[str, Any]:
    """Write the same in the format of SQuAD."""
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": [
                        {"text": text, "answer_start": start}
                        for text, start in zip(
                            row["answers"]["text"], row["answers"]["answer_start"]
                        )
                    ],
                }
            ],
        }
        for row in rows
    ]
    return {"version": "1.1", "data": [{"title": "a title", "paragraphs": paragraphs}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(nested(flat())))
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_formats_give_the_same_answers(
    example: Example, tiny_qa_model: Path, tmp_path: Path
) -> None:
    import datasets

    rows = flat()
    (tmp_path / "nested.json").write_text(json.dumps(nested(rows)))
    (tmp_path / "flat.json").write_text(json.dumps({"data": rows}))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows)})
    dataset.save_to_disk(tmp_path / "saved")
    given = {
        "nested": ("--validation_file", tmp_path / "nested.json"),
        "flat": ("--validation_file", tmp_path / "flat.json"),
        "lines": ("--validation_file", tmp_path / "lines.jsonl"),
        "saved": ("--dataset_name", tmp_path / "saved"),
        "padded": ("--validation_file", tmp_path / "flat.json", "--pad_to_max_length"),
    }
    answers = {}
    for name, options in given.items():
        output = tmp_path / f"output_{name}"
        common = ("--do_eval", "--model_name_or_path", tiny_qa_model, "--output_dir", output)
        done = example(SCRIPT, *common, *options, *WINDOWS)
        assert done.code == 0, done.err
        answers[name] = (read(output / "predictions.json"), results(output)["f1"])
        n_best = read(output / "nbest_predictions.json")
        assert list(n_best) == [row["id"] for row in rows]
        assert {name: entries[0]["text"] for name, entries in n_best.items()} == answers[name][0]
        assert results(output)["samples"] > results(output)["questions"] == len(rows)
        assert read(output / "all_results.json") == read(output / "eval_results.json")
    assert all(answer == answers["nested"] for answer in answers.values())


def test_pipelines_are_compared_with_the_original(
    example: Example, tiny_qa_model: Path, data: Path, output: Path
) -> None:
    done = example(
        SCRIPT,
        *("--model_name_or_path", tiny_qa_model, "--validation_file", data, "--do_eval"),
        *("--output_dir", output, *WINDOWS),
        *("--cpuaccel_backends", "bettertransformer,jit", "--compare_with_eager"),
    )
    assert done.code == 0, done.err
    found = results(output)
    assert (found["f1"], found["exact_match"]) == (found["eager_f1"], found["eager_exact_match"])
    assert found["cpuaccel_bettertransformer_applied"] == found["cpuaccel_jit_applied"] == 1
    assert found["cpuaccel_calls_original"] == 0
    assert found["speedup_low"] <= found["speedup_median"] <= found["speedup_high"]
    assert found["speedup_pairs"] > 1
    assert "speedup " in done.out
    assert "step      jit: applied" in done.out
    assert read(output / "eval_cpuaccel_report.json")["pipeline"] == "bettertransformer,jit"


def test_questions_without_answers(
    example: Example, tiny_qa_model: Path, tmp_path: Path, output: Path
) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(nested(flat(answered=lambda row: row % 2 == 0))))
    options = (
        *("--model_name_or_path", tiny_qa_model, "--validation_file", data, "--do_eval"),
        *("--output_dir", output, *WINDOWS),
    )
    done = example(SCRIPT, *options)
    assert done.code == 1
    assert "the question 1 has no answer. For data such as SQuAD 2" in done.err
    done = example(
        SCRIPT, *options, "--version_2_with_negative", "--null_score_diff_threshold", -100
    )
    assert done.code == 0, done.err
    assert set(read(output / "predictions.json").values()) == {""}
    assert results(output)["NoAns_exact_match"] == 100
    assert results(output)["HasAns_exact_match"] == 0
    assert results(output)["exact_match"] == 50
    assert len(read(output / "null_odds.json")) == 12


def test_questions_without_labels_can_be_predicted(
    example: Example, tiny_qa_model: Path, tmp_path: Path, output: Path
) -> None:
    rows = [{name: row[name] for name in ("id", "question", "context")} for row in flat()]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    options = ("--model_name_or_path", tiny_qa_model, "--output_dir", output, *WINDOWS)
    done = example(SCRIPT, *options, "--do_predict", "--test_file", tmp_path / "test.json")
    assert done.code == 0, done.err
    assert len(read(output / "predict_predictions.json")) == len(rows)
    assert "f1" not in results(output, "predict")
    done = example(SCRIPT, *options, "--do_eval", "--validation_file", tmp_path / "test.json")
    assert done.code == 1
    assert " has no column answers. Available: id, question, context" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--do_eval", "--do_eval needs data"),
        ("--validation_file DATA", "nothing to do. Pass --do_eval"),
        ("--do_eval --validation_file DATA --do_train", "this example only evaluates"),
        ("--do_eval --validation_file DATA --jit_mode", "unknown option --jit_mode. Did you mean"),
        ("--do_eval --validation_file DATA --dataset_name squad", "exclude each other"),
        ("--do_eval --validation_file DATA --doc_stride x", "invalid int value: 'x'"),
        (
            "--do_eval --validation_file DATA --doc_stride 384",
            "--doc_stride must be >= 0 and < --max_seq_length (384), got 384",
        ),
        ("--do_eval --validation_file DATA --n_best_size 0", "must be >= 1, got 0"),
        ("--do_eval --validation_file DATA --max_eval_samples 0", "must be >= 1, got 0"),
        ("--do_eval --validation_file nowhere.json", "nowhere.json: no such file"),
        (
            "--do_eval --validation_file DATA --compare_with_eager",
            "--compare_with_eager needs a pipeline",
        ),
        ("--do_eval --validation_file DATA --cpuaccel_backends jit,ipex", "put ipex before jit"),
        ("--do_eval --validation_file DATA --cpuaccel_backends fast", "unknown backend"),
        (
            "--do_eval --validation_file DATA --jit_mode_eval --cpuaccel_backends jit",
            "only one of them can choose the pipeline",
        ),
        ("--do_eval --validation_file DATA --cpuaccel_pipeline nowhere.toml", "can't be read"),
    ],
)
def test_usage_errors_exit_with_2(
    example: Example, tiny_qa_model: Path, data: Path, output: Path, options: str, message: str
) -> None:
    given = [data if option == "DATA" else option for option in options.split()]
    done = example(SCRIPT, "--model_name_or_path", tiny_qa_model, "--output_dir", output, *given)
    done.assert_error(message, 2)
    assert not list(output.glob("*"))


def test_a_missing_option_is_named(example: Example) -> None:
    done = example(SCRIPT, "--do_eval")
    done.assert_error("required: --model_name_or_path", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.json is empty"),
        ('{"data": [{"a": }]}', "invalid JSON: expecting value in line 1, column 17"),
        ('{"data": []}', " has no rows"),
        ('{"data": [{"paragraphs": []}]}', " has no questions"),
        ('[{"id": "1", "question": "q"}]', " has no column context. Available: id, question"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}',
            "row 1 is invalid: 'paragraphs.0.qas.0.question' is missing",
        ),
        (
            '[{"id": "1", "question": 5, "context": "c"}]',
            "question: input should be a valid string",
        ),
    ],
)
def test_invalid_data_exits_with_1(
    example: Example, tiny_qa_model: Path, data: Path, output: Path, content: str, message: str
) -> None:
    data.write_text(content)
    done = example(
        SCRIPT,
        *("--model_name_or_path", tiny_qa_model, "--output_dir", output),
        *("--do_eval", "--validation_file", data),
    )
    done.assert_error(message)
    assert not list(output.glob("*"))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (("model.safetensors",), "can't be loaded: Error no file named"),
        (("config.json", "model.safetensors"), "The folder contains"),
        (("",), ": no such folder"),
    ],
)
def test_a_model_with_missing_files(
    example: Example,
    tiny_qa_model: Path,
    data: Path,
    tmp_path: Path,
    output: Path,
    missing: tuple[str, ...],
    message: str,
) -> None:
    folder = tmp_path / "model"
    if missing != ("",):
        shutil.copytree(tiny_qa_model, folder)
        for name in missing:
            (folder / name).unlink()
    done = example(
        SCRIPT,
        *("--model_name_or_path", folder, "--output_dir", output),
        *("--do_eval", "--validation_file", data, *WINDOWS),
    )
    done.assert_error(message, 2 if missing == ("",) else 1)


def test_weights_that_are_truncated_or_for_another_task(
    example: Example, tiny_qa_model: Path, data: Path, tmp_path: Path, output: Path
) -> None:
    from transformers import AutoModel

    options = ("--output_dir", output, "--do_eval", "--validation_file", data, *WINDOWS)
    folder = tmp_path / "model"
    shutil.copytree(tiny_qa_model, folder)
    AutoModel.from_pretrained(tiny_qa_model).save_pretrained(folder)
    done = example(SCRIPT, "--model_name_or_path", folder, *options)
    done.assert_error("no weights for qa_outputs.bias, qa_outputs.w")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    done = example(SCRIPT, "--model_name_or_path", folder, *options)
    done.assert_error("can't be loaded")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max_seq_length", 65), "--max_seq_length must be <= 64"),
        (("--max_seq_length", 12, "--doc_stride", 6), "leave no room for a context"),
    ],
)
def test_lengths_that_do_not_fit(
    example: Example,
    tiny_qa_model: Path,
    data: Path,
    output: Path,
    options: tuple[object, ...],
    message: str,
) -> None:
    done = example(
        SCRIPT,
        *("--model_name_or_path", tiny_qa_model, "--output_dir", output),
        *("--do_eval", "--validation_file", data, "--doc_stride", 8, *options),
    )
    done.assert_error(message)


def test_help_begins_with_the_options_of_the_example(example: Example) -> None:
    done = example(SCRIPT, "--help")
    assert done.code == 0
    assert done.out.index("--model_name_or_path") < done.out.index("--max_seq_length")
    assert "--cpuaccel_backends" in done.out
    assert "--learning_rate" not in done.out
    assert len(done.out.splitlines()) < 120
