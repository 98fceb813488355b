"""run_qa.py, in processes of its own: what it takes, what it gives, and how it fails."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from tests.examples.conftest import WORDS, Example

SCRIPT = "question_answering/run_qa.py"

WINDOWS = ("--max_seq_length", 32, "--doc_stride", 8, "--per_device_eval_batch_size", 2)

Flat = list[dict[str, Any]]


def flat(count: int = 12, answered: Callable[[int], bool] = lambda row: True) -> Flat:
    """Questions on contexts of one or more windows."""
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
    """The same in SQuAD's own format."""
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


def results(output: Path, stage: str = "eval") -> dict[str, Any]:
    """What was written of a stage, without the stage's name in front."""
    found = read(output / f"{stage}_results.json")
    return {name.removeprefix(f"{stage}_"): value for name, value in found.items()}


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


def test_pipelines_are_compared_with_the_model_as_it_was(
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
    assert "speed-up " in done.out
    assert "step      jit: applied" in done.out
    assert read(output / "eval_cpuaccel_report.json")["pipeline"] == "bettertransformer,jit"


def test_questions_without_an_answer(
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
    assert "the question 1 in it has no answer. If that is meant" in done.err
    done = example(
        SCRIPT, *options, "--version_2_with_negative", "--null_score_diff_threshold", -100
    )
    assert done.code == 0, done.err
    assert set(read(output / "predictions.json").values()) == {""}
    assert results(output)["NoAns_exact_match"] == 100
    assert results(output)["HasAns_exact_match"] == 0
    assert results(output)["exact_match"] == 50
    assert len(read(output / "null_odds.json")) == 12


def test_what_has_no_answers_can_be_predicted(
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
    assert "it has no column answers. There are: id, question, context" in done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--do_eval", "--do_eval was asked for, but not on what data"),
        ("--validation_file DATA", "neither --do_eval nor --do_predict was asked for"),
        ("--do_eval --validation_file DATA --do_train", "this example only evaluates"),
        ("--do_eval --validation_file DATA --jit_mode", "there is no such option. Did you mean"),
        ("--do_eval --validation_file DATA --dataset_name squad", "were both given"),
        ("--do_eval --validation_file DATA --doc_stride x", "invalid int value: 'x'"),
        ("--do_eval --validation_file DATA --doc_stride 384", "a stride from 0 up"),
        ("--do_eval --validation_file DATA --n_best_size 0", "must be >= 1, got 0"),
        ("--do_eval --validation_file DATA --max_eval_samples 0", "must be >= 1, got 0"),
        ("--do_eval --validation_file nowhere.json", "there is no such file"),
        ("--do_eval --validation_file DATA --compare_with_eager", "nothing to compare with"),
        ("--do_eval --validation_file DATA --cpuaccel_backends jit,ipex", "put ipex before jit"),
        ("--do_eval --validation_file DATA --cpuaccel_backends fast", "unknown backend"),
        (
            "--do_eval --validation_file DATA --jit_mode_eval --cpuaccel_backends jit",
            "in more than one way",
        ),
        ("--do_eval --validation_file DATA --cpuaccel_pipeline nowhere.toml", "can't be read"),
    ],
)
def test_mistakes_in_what_is_asked_end_with_2(
    example: Example, tiny_qa_model: Path, data: Path, output: Path, options: str, told: str
) -> None:
    given = [data if option == "DATA" else option for option in options.split()]
    done = example(SCRIPT, "--model_name_or_path", tiny_qa_model, "--output_dir", output, *given)
    assert_told(done.code, done.err, 2, told)
    assert not list(output.glob("*"))


def test_an_option_that_is_required_is_named(example: Example) -> None:
    done = example(SCRIPT, "--do_eval")
    assert_told(done.code, done.err, 2, "required: --model_name_or_path")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "it is empty"),
        ('{"data": [{"a": }]}', "is not JSON: expecting value in line 1, column 17"),
        ('{"data": []}', "there are no rows in it"),
        ('{"data": [{"paragraphs": []}]}', "there are no questions in it"),
        ('[{"id": "1", "question": "q"}]', "it has no column context. There are: id, question"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}',
            "row 1 in it: 'paragraphs.0.qas.0.question' is missing",
        ),
        (
            '[{"id": "1", "question": 5, "context": "c"}]',
            "question: input should be a valid string",
        ),
    ],
)
def test_data_that_is_wrong_ends_with_1(
    example: Example, tiny_qa_model: Path, data: Path, output: Path, content: str, told: str
) -> None:
    data.write_text(content)
    done = example(
        SCRIPT,
        *("--model_name_or_path", tiny_qa_model, "--output_dir", output),
        *("--do_eval", "--validation_file", data),
    )
    assert_told(done.code, done.err, 1, told)
    assert not list(output.glob("*"))


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (("model.safetensors",), "can't be loaded: Error no file named"),
        (("config.json", "model.safetensors"), "In the folder is"),
        (("",), "there is no such folder"),
    ],
)
def test_a_model_that_is_not_all_there(
    example: Example,
    tiny_qa_model: Path,
    data: Path,
    tmp_path: Path,
    output: Path,
    missing: tuple[str, ...],
    told: str,
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
    assert_told(done.code, done.err, 2 if missing == ("",) else 1, told)


def test_weights_that_are_cut_off_or_of_another_task(
    example: Example, tiny_qa_model: Path, data: Path, tmp_path: Path, output: Path
) -> None:
    from transformers import AutoModel

    options = ("--output_dir", output, "--do_eval", "--validation_file", data, *WINDOWS)
    folder = tmp_path / "model"
    shutil.copytree(tiny_qa_model, folder)
    AutoModel.from_pretrained(tiny_qa_model).save_pretrained(folder)
    done = example(SCRIPT, "--model_name_or_path", folder, *options)
    assert_told(done.code, done.err, 1, "no weights for qa_outputs.bias, qa_outputs.w")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    done = example(SCRIPT, "--model_name_or_path", folder, *options)
    assert_told(done.code, done.err, 1, "can't be loaded")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--max_seq_length", 65), "the model reads at most 64 tokens"),
        (("--max_seq_length", 12, "--doc_stride", 6), "leaves no room for its context"),
    ],
)
def test_lengths_that_can_not_be(
    example: Example,
    tiny_qa_model: Path,
    data: Path,
    output: Path,
    options: tuple[object, ...],
    told: str,
) -> None:
    done = example(
        SCRIPT,
        *("--model_name_or_path", tiny_qa_model, "--output_dir", output),
        *("--do_eval", "--validation_file", data, "--doc_stride", 8, *options),
    )
    assert_told(done.code, done.err, 1, told)


def test_help_begins_with_the_examples_own_options(example: Example) -> None:
    done = example(SCRIPT, "--help")
    assert done.code == 0
    assert done.out.index("--model_name_or_path") < done.out.index("--max_seq_length")
    assert "--cpuaccel_backends" in done.out
    assert "--learning_rate" not in done.out
    assert len(done.out.splitlines()) < 120


def assert_told(code: int, stderr: str, expected: int, told: str) -> None:
    """The exit code, one message that says this, and no traceback."""
    assert code == expected, stderr
    assert stderr.count("error: ") == 1
    assert told in stderr
    assert "Traceback" not in stderr
