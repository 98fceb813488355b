"""run_glue.py with small models, each run in its own process."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
datasets = pytest.importorskip("datasets")

from scipy import stats  # noqa: E402
from sklearn import metrics  # noqa: E402

from tests.examples.conftest import Example  # noqa: E402
from tests.examples.data import Rows, read_tsv, spoiled, texts, write_rows  # noqa: E402
from tests.examples.models import balance, distinct_model  # noqa: E402
from tests.examples.results import assert_jit_made_all_outputs, pipelines, results  # noqa: E402
from tests.integrations.parts import letters_tokenizer  # noqa: E402

SCRIPT = "text_classification/run_glue.py"
NAMES = ["bad", "good", "neither"]
COUNT = 21


class Trained(NamedTuple):
    """A saved model, and its logits for each text alone: float32[texts, classes]."""

    folder: Path
    says: np.ndarray[Any, Any]

    @property
    def classes(self) -> list[int]:
        return [int(number) for number in self.says.argmax(axis=1)]


def trained(folder: Path, names: list[str] | None, *, pairs: bool, classes: int = 3) -> Trained:
    model, tokenizer = distinct_model("bert-text", names, num_labels=classes), letters_tokenizer()
    with torch.no_grad():
        says = [
            model(**tokenizer(*given, return_tensors="pt")).logits[0].numpy()
            for given in inputs(pairs=pairs)
        ]
    balanced = balance(model.classifier, np.stack(says))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Trained(folder, balanced)


def inputs(*, pairs: bool) -> list[tuple[str, ...]]:
    found = texts(2 * COUNT)
    return list(zip(found[:COUNT], found[COUNT:])) if pairs else [(text,) for text in found[:COUNT]]


def rows(columns: tuple[str, ...], labels: list[Any] | None = None) -> Rows:
    given = inputs(pairs=len(columns) == 2)
    data: Rows = [dict(zip(columns, each)) for each in given]
    if labels is not None:
        for row, label in zip(data, labels, strict=True):
            row["label"] = label
    return data


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("single"), NAMES, pairs=False)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("paired"), None, pairs=True)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Save a model whose classes have another order than in GLUE."""
    folder = tmp_path_factory.mktemp("binary")
    return trained(folder, ["equivalent", "not_equivalent"], pairs=True, classes=2)


OTHER = {0: 1, 1: 2, 2: 0}
"""A wrong class for each."""


def test_the_outputs_differ(single: Trained, paired: Trained, binary: Trained) -> None:
    assert set(single.classes) == set(paired.classes) == {0, 1, 2}
    assert set(binary.classes) == {0, 1}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_every_format_with_names_for_labels(
    example: Example, single: Trained, tmp_path: Path, suffix: str
) -> None:
    known = [NAMES[number].title() for number in spoiled(single.classes, OTHER)]
    done = example(
        SCRIPT,
        *("--model_name_or_path", single.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file"),
        write_rows(tmp_path / f"dev.{suffix}", rows(("sentence1",), known)),
        *("--do_predict", "--test_file"),
        write_rows(tmp_path / f"test.{suffix}", rows(("sentence1",))),
        *("--per_device_eval_batch_size", 4),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["samples"] == COUNT
    assert read_tsv(tmp_path / "out" / "predictions.tsv") == {
        "index": [str(number) for number in range(COUNT)],
        "prediction": [NAMES[number] for number in single.classes],
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "all_results.json",
        "eval_results.json",
        "predict_results.json",
        "predictions.tsv",
    ]


@pipelines
def test_a_pipeline_scores_as_eager(
    example: Example, paired: Trained, tmp_path: Path, options: list[str]
) -> None:
    known = spoiled(paired.classes, OTHER)
    data = write_rows(tmp_path / "dev.csv", rows(("sentence1", "sentence2"), known))
    done = example(
        SCRIPT,
        *("--model_name_or_path", paired.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, "--per_device_eval_batch_size", 4, *options),
        "--compare_with_eager",
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["accuracy"] == found["eager_accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert_jit_made_all_outputs(found)
    assert "speedup" in done.out


def test_f1_is_about_the_class_that_glue_calls_equivalent(
    example: Example, binary: Trained, tmp_path: Path
) -> None:
    known = spoiled(binary.classes, {0: 1, 1: 0})
    names = [["equivalent", "not_equivalent"][number] for number in known]
    data = write_rows(tmp_path / "dev.tsv", rows(("sentence1", "sentence2"), names))
    done = example(
        SCRIPT,
        *("--model_name_or_path", binary.folder, "--output_dir", tmp_path / "out"),
        *("--task_name", "MRPC", "--do_eval", "--validation_file", data),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    expected = metrics.f1_score(known, binary.classes, pos_label=0)
    assert found["f1"] == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(metrics.f1_score(known, binary.classes, pos_label=1), abs=0.01)


def test_matthews_correlation_for_cola(example: Example, tmp_path: Path) -> None:
    model = trained(tmp_path / "model", None, pairs=False, classes=2)
    known = spoiled(model.classes, {0: 1, 1: 0})
    data = write_rows(tmp_path / "dev.jsonl", rows(("sentence",), known))
    done = example(
        SCRIPT,
        *("--model_name_or_path", tmp_path / "model", "--output_dir", tmp_path / "out"),
        *("--task_name", "cola", "--do_eval", "--validation_file", data),
    )
    assert done.code == 0, done.err
    expected = metrics.matthews_corrcoef(known, model.classes)
    assert 0.1 < expected < 0.9
    assert results(tmp_path / "out")["matthews_correlation"] == pytest.approx(expected, abs=1e-5)


def test_correlations_for_a_regression(example: Example, tmp_path: Path) -> None:
    model = trained(tmp_path / "model", None, pairs=True, classes=1)
    noise = np.random.default_rng(0).normal(size=COUNT)
    known = [round(float(value), 3) for value in model.says[:, 0] + noise]
    columns = ("sentence1", "sentence2")
    done = example(
        SCRIPT,
        *("--model_name_or_path", tmp_path / "model", "--output_dir", tmp_path / "out"),
        *("--task_name", "stsb", "--do_eval", "--validation_file"),
        write_rows(tmp_path / "dev.csv", rows(columns, known)),
        *("--do_predict", "--test_file", write_rows(tmp_path / "test.csv", rows(columns))),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    expected = stats.pearsonr(model.says[:, 0], known).statistic
    assert 0.1 < expected < 0.99
    assert found["pearson"] == pytest.approx(expected, abs=1e-4)
    expected = stats.spearmanr(model.says[:, 0], known).statistic
    assert found["spearmanr"] == pytest.approx(expected, abs=1e-4)
    predicted = read_tsv(tmp_path / "out" / "predictions.tsv")["prediction"]
    assert [float(each) for each in predicted] == pytest.approx(model.says[:, 0], abs=1e-4)


def test_both_splits_of_mnli_with_labels_in_another_order_than_the_models(
    example: Example, tmp_path: Path
) -> None:
    of_data = ["entailment", "neutral", "contradiction"]
    model = trained(tmp_path / "model", [name.upper() for name in of_data[::-1]], pairs=True)
    columns = ("premise", "hypothesis")

    def split(known: list[int]) -> Any:
        made = datasets.Dataset.from_list(rows(columns, [2 - number for number in known]))
        return made.cast_column("label", datasets.ClassLabel(names=of_data))

    datasets.DatasetDict(
        validation_matched=split(model.classes),
        validation_mismatched=split(spoiled(model.classes, OTHER)),
    ).save_to_disk(tmp_path / "glue")
    done = example(
        SCRIPT,
        *("--model_name_or_path", tmp_path / "model", "--output_dir", tmp_path / "out"),
        *("--task_name", "mnli", "--dataset_name", tmp_path / "glue", "--do_eval"),
    )
    assert done.code == 0, done.err
    assert results(tmp_path / "out")["accuracy"] == 1
    found = results(tmp_path / "out", "eval_mm")["accuracy"]
    assert found == pytest.approx(2 / 3, abs=1e-6)


ROWS: Rows = [{"sentence1": "a", "label": "good"}, {"sentence1": "b", "label": "bad"}]
"""Valid rows, to which tests add an invalid one."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", " is empty"),
        ('[{"sentence1": "a", "label": 0', ": invalid JSON: expecting ',' delimiter in line 1"),
        ([{"label": 1}], " has no column sentence1. Available: label"),
        ([{"sentence1": "a"}], " has no column label. Available: sentence1"),
        ([{"sentence1": ["a"], "label": 1}], ": the column sentence1 is not text"),
        ([*ROWS, {"sentence1": None, "label": "good"}], ": row 3 has no sentence1"),
        (
            [*ROWS, {"sentence1": "c", "label": "goood"}],
            ": the model has no class for the label goood of row 3. Did you mean 'good'? "
            "Classes: bad, good, neither",
        ),
        ([{"sentence1": "a", "label": 3}], ": the model has no class for the label 3 of row 1"),
    ],
)
def test_invalid_data(
    example: Example, single: Trained, tmp_path: Path, content: str | Rows, message: str
) -> None:
    data = tmp_path / "dev.json"
    if isinstance(content, str):
        data.write_text(content)
    else:
        write_rows(data, content)
    done = example(
        SCRIPT,
        *("--model_name_or_path", single.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data),
    )
    done.assert_error(f"error: --validation_file {data}{message}")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--task_name", "mprc"],
            "unknown --task_name mprc. Did you mean 'mrpc'? "
            "Available: cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli",
        ),
        ([], "--do_eval needs data"),
        (["--validation_file", "nowhere.csv"], "--validation_file nowhere.csv: no such file"),
        (["--max_seq_length", "0"], "--max_seq_length must be >= 1, got 0"),
    ],
)
def test_usage_errors(
    example: Example, single: Trained, tmp_path: Path, options: list[str], message: str
) -> None:
    done = example(
        SCRIPT,
        *("--model_name_or_path", single.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", *options),
    )
    done.assert_error(f"error: {message}", code=2)


def test_models_that_do_not_fit(example: Example, single: Trained, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other"
    distinct_model("bert-token", None).save_pretrained(other)
    letters_tokenizer().save_pretrained(other)
    columns = ("sentence1", "sentence2")
    data = write_rows(tmp_path / "dev.json", rows(columns, [0.5] * COUNT))
    for folder, task, message in [
        (empty, "mrpc", f"the tokenizer or processor {empty} can't be loaded"),
        (other, "mrpc", f"--model_name_or_path {other} has no weights for"),
        (single.folder, "stsb", "--task_name stsb does not fit the model, which has 3 classes."),
    ]:
        done = example(
            SCRIPT,
            *("--model_name_or_path", folder, "--output_dir", tmp_path / "out"),
            *("--task_name", task, "--do_eval", "--validation_file", data),
        )
        done.assert_error(f"error: {message}")
