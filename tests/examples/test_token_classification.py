"""run_ner.py with small models, each run in its own process."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
datasets = pytest.importorskip("datasets")
pytest.importorskip("nervaluate")

from tests.examples.conftest import Example  # noqa: E402
from tests.examples.data import Rows, words, write_rows  # noqa: E402
from tests.examples.models import balance, distinct_model  # noqa: E402
from tests.examples.results import assert_jit_made_all_outputs, pipelines, results  # noqa: E402
from tests.integrations.parts import letters_tokenizer  # noqa: E402

SCRIPT = "token_classification/run_ner.py"
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
COUNT = 12


class Trained(NamedTuple):
    """A saved model, and the class of each letter of the words of each sentence."""

    folder: Path
    says: list[list[list[int]]]

    @property
    def tags(self) -> list[list[str]]:
        """The tags of the words of each sentence, by their first letters."""
        return [[NAMES[letters[0]] for letters in sentence] for sentence in self.says]


def sentences() -> list[list[str]]:
    random = np.random.default_rng(0)
    return [words(random, 1 + number % 7) for number in range(COUNT)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("ner")
    model = distinct_model("bert-token", NAMES, num_labels=len(NAMES))
    tokenizer = letters_tokenizer()
    with torch.no_grad():
        logits = [
            model(**tokenizer(" ".join(sentence), return_tensors="pt")).logits[0, 1:-1].numpy()
            for sentence in sentences()
        ]
    found = balance(model.classifier, np.concatenate(logits)).argmax(axis=1).tolist()
    says = [[[found.pop(0) for _ in word] for word in sentence] for sentence in sentences()]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Trained(folder, says)


def rows(tags: list[list[Any]] | None = None) -> Rows:
    if tags is None:
        return [{"tokens": tokens} for tokens in sentences()]
    return [{"tokens": tokens, "ner_tags": of} for tokens, of in zip(sentences(), tags)]


def spoiled(tags: list[list[str]]) -> list[list[str]]:
    """The labels: the tags without the entities of every third sentence."""
    return [["O"] * len(of) if row % 3 == 2 else of for row, of in enumerate(tags)]


def entities(tags: list[list[str]]) -> set[tuple[int, int, int, str]]:
    """Return the entities of conlleval: sentence, first word, one past the last, kind."""
    found = set()
    for row, of in enumerate(tags):
        start, kind = 0, ""
        for word, tag in enumerate([*of, "O"]):
            prefix, _, of_word = tag.partition("-")
            if prefix != "I" or of_word != kind:
                if kind:
                    found.add((row, start, word, kind))
                start, kind = word, of_word
    return found


def expected(found: list[list[str]], known: list[list[str]]) -> dict[str, float]:
    mine, theirs = entities(found), entities(known)
    right = len(mine & theirs)
    precision, recall = right / len(mine), right / len(theirs)
    same = [a == b for pair in zip(found, known) for a, b in zip(*pair, strict=True)]
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "accuracy": sum(same) / len(same),
    }


def assert_scores(found: dict[str, Any], wanted: dict[str, float], prefix: str = "") -> None:
    assert {name: found[f"{prefix}{name}"] for name in wanted} == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize(
    ("found", "known", "wanted"),
    [
        # By hand: predictions and labels, then the numbers of correct, predicted and true entities.
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", (2, 2, 2)),
        ("B-PER O O B-LOC", "B-PER I-PER O B-LOC", (1, 2, 2)),
        ("B-PER I-PER O B-PER", "B-PER I-PER O B-LOC", (1, 2, 2)),
        ("B-PER B-PER O O", "B-PER I-PER O O", (0, 2, 1)),
        # Ill-formed: an entity that begins with I-, and one that changes its kind.
        ("O I-PER I-PER O", "O B-PER I-PER O", (1, 1, 1)),
        ("B-PER I-LOC O O", "B-PER B-LOC O O", (2, 2, 2)),
        ("I-PER B-PER I-LOC I-LOC", "B-PER B-PER B-LOC I-LOC", (3, 3, 3)),
        ("B-PER I-LOC I-PER O", "B-PER I-PER I-PER O", (0, 3, 1)),
        ("O O O O", "B-PER O O O", (0, 0, 1)),
    ],
)
def test_entities_are_those_of_conlleval(
    found: str, known: str, wanted: tuple[int, int, int]
) -> None:
    from token_classification.metrics import score

    right, mine, theirs = wanted
    assert (len(entities([found.split()])), len(entities([known.split()]))) == (mine, theirs)
    # An empty sentence first.
    scores = score([[], found.split()], [[], known.split()])
    assert scores["precision"] == pytest.approx(right / mine if mine else 0, abs=1e-6)
    assert scores["recall"] == pytest.approx(right / theirs, abs=1e-6)


def test_ill_formed_tags_of_many_sentences() -> None:
    from token_classification.metrics import score

    random = np.random.default_rng(0)
    found, known = (
        [[str(tag) for tag in random.choice(NAMES, 1 + row % 9)] for row in range(200)]
        for _ in range(2)
    )
    assert_scores(score(found, known), expected(found, known))


def test_words_with_unusual_white_space(tmp_path: Path) -> None:
    from token_classification.conll import read_conll, to_conll

    rows = [
        {"tokens": ["10\xa0000", "a\x85b", "c\u2028d"], "ner_tags": ["O", "B-LOC", "I-LOC"]},
        {"tokens": ["New York"], "ner_tags": ["B-LOC"]},
    ]
    text = to_conll(*([row[name] for row in rows] for name in ("tokens", "ner_tags")))
    data = tmp_path / "dev.conll"
    data.write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert read_conll(data, "--validation_file") == rows


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "conll"])
def test_every_format(example: Example, trained: Trained, tmp_path: Path, suffix: str) -> None:
    known = spoiled(trained.tags)
    data, test = tmp_path / f"dev.{suffix}", tmp_path / f"test.{suffix}"
    if suffix == "conll":
        lines = ["-DOCSTART- -X- O O", ""]
        for tokens, tags in zip(sentences(), known):
            lines += [*(f"{token} NN x {tag}" for token, tag in zip(tokens, tags)), ""]
        data.write_text("\n".join(lines))
        test.write_text("\n\n".join("\n".join(tokens) for tokens in sentences()))
    else:
        write_rows(data, rows(known))
        write_rows(test, rows())
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, "--do_predict", "--test_file", test),
        *("--per_device_eval_batch_size", 4),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert_scores(found, expected(trained.tags, known))
    assert 0.3 < found["f1"] < 0.9
    assert (found["samples"], found["words_unread"]) == (COUNT, 0)
    assert sum(map(len, sentences())) == found["words"]
    written = (tmp_path / "out" / "predictions.conll").read_text()
    assert written == "\n".join(
        "".join(f"{token}\t{tag}\n" for token, tag in zip(*pair))
        for pair in zip(sentences(), trained.tags)
    )


@pipelines
def test_a_pipeline_scores_as_eager(
    example: Example, trained: Trained, tmp_path: Path, options: list[str]
) -> None:
    known = spoiled(trained.tags)
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", write_rows(tmp_path / "dev.jsonl", rows(known))),
        *("--per_device_eval_batch_size", 4, *options, "--compare_with_eager"),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    for prefix in ("", "eager_"):
        assert_scores(found, expected(trained.tags, known), prefix)
    assert_jit_made_all_outputs(found)


def test_all_pieces_of_a_word(example: Example, trained: Trained, tmp_path: Path) -> None:
    known = spoiled(trained.tags)
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", write_rows(tmp_path / "dev.json", rows(known))),
        "--label_all_tokens",
    )
    assert done.code == 0, done.err
    of_pieces = [
        [NAMES[number] for letters in sentence for number in letters] for sentence in trained.says
    ]
    known_of_pieces = [
        [
            tag if place == 0 else tag.replace("B-", "I-")
            for letters, tag in zip(sentence, tags)
            for place in range(len(letters))
        ]
        for sentence, tags in zip(trained.says, known)
    ]
    assert_scores(results(tmp_path / "out"), expected(of_pieces, known_of_pieces))


def test_words_beyond_the_limit_are_outside(
    example: Example, trained: Trained, tmp_path: Path
) -> None:
    known = [["B-PER"] * len(tokens) for tokens in sentences()]
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", write_rows(tmp_path / "dev.json", rows(known))),
        *("--do_predict", "--test_file", write_rows(tmp_path / "test.json", rows())),
        *("--max_seq_length", 3),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    assert found["words_unread"] == found["words"] - COUNT
    for block in (tmp_path / "out" / "predictions.conll").read_text().split("\n\n"):
        assert all(line.endswith("\tO") for line in block.strip().splitlines()[1:])


def test_numbers_for_tags_of_a_dataset_and_of_a_model_without_names(
    example: Example, trained: Trained, tmp_path: Path
) -> None:
    unnamed = tmp_path / "model"
    model = transformers.AutoModelForTokenClassification.from_pretrained(trained.folder)
    model.config.id2label = {number: f"LABEL_{number}" for number in range(len(NAMES))}
    model.config.label2id = {name: number for number, name in model.config.id2label.items()}
    model.save_pretrained(unnamed)
    letters_tokenizer().save_pretrained(unnamed)
    known = spoiled(trained.tags)
    numbers = [[NAMES.index(tag) for tag in tags] for tags in known]
    made = datasets.Dataset.from_list(rows(numbers))
    features = made.features.copy()
    kind = type(features["ner_tags"])
    if kind is list:
        features["ner_tags"] = [datasets.ClassLabel(names=NAMES)]
    else:
        features["ner_tags"] = kind(datasets.ClassLabel(names=NAMES))
    datasets.DatasetDict(validation=made.cast(features)).save_to_disk(tmp_path / "data")
    done = example(
        SCRIPT,
        *("--model_name_or_path", unnamed, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--dataset_name", tmp_path / "data"),
    )
    assert done.code == 0, done.err
    assert_scores(results(tmp_path / "out"), expected(trained.tags, known))


def test_a_tokenizer_that_needs_blanks_before_words(example: Example, tmp_path: Path) -> None:
    alphabet = sorted(transformers_alphabet())
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    vocabulary |= {letter: 5 + number for number, letter in enumerate(alphabet)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    folder = tmp_path / "model"
    files = [str(tmp_path / name) for name in ("vocab.json", "merges.txt")]
    transformers.RobertaTokenizerFast(*files).save_pretrained(folder)
    distinct_model(
        "roberta-token", NAMES, num_labels=len(NAMES), vocab_size=len(vocabulary), pad_token_id=1
    ).save_pretrained(folder)
    data = write_rows(tmp_path / "dev.json", rows([["O"] * len(each) for each in sentences()]))
    done = example(
        SCRIPT,
        *("--model_name_or_path", folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data),
    )
    assert done.code == 0, done.err
    assert results(tmp_path / "out")["words_unread"] == 0


def transformers_alphabet() -> list[str]:
    import tokenizers

    alphabet: list[str] = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    return alphabet


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dev.conll", "", " is empty"),
        ("dev.conll", "-DOCSTART- -X-\n\n", " has no sentences"),
        ("dev.conll", "EU B-LOC\nwon\n", ": line 2 has 1 columns, but the first line has 2"),
        ("dev.conll", "EU\nwon\n", " has no column ner_tags. Available: tokens"),
        ("dev.json", '[{"tokens": ["EU"]', ": invalid JSON"),
        ("dev.jsonl", '{"tokens": ["EU"]}', " has no column ner_tags. Available: tokens"),
        ("dev.csv", "tokens,ner_tags\nEU won,O O\n", ": tokens in row 1 must be a list of words"),
        (
            "dev.jsonl",
            '{"tokens": ["EU", "won"], "ner_tags": ["O"]}',
            ": row 1 has 2 tokens and 1 ner_tags. Give each token one tag",
        ),
        (
            "dev.jsonl",
            '{"tokens": ["EU"], "ner_tags": ["B-LOG"]}',
            ": the model has no class for the label B-LOG of row 1. Did you mean 'B-LOC'? "
            "Classes: O, B-PER, I-PER, B-LOC, I-LOC.",
        ),
    ],
)
def test_invalid_data(
    example: Example, trained: Trained, tmp_path: Path, name: str, content: str, message: str
) -> None:
    data = tmp_path / name
    data.write_text(content)
    done = example(
        SCRIPT,
        *("--model_name_or_path", trained.folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data),
    )
    done.assert_error(f"error: --validation_file {data}{message}")
    assert not list((tmp_path / "out").iterdir())


def test_a_model_with_other_tags_is_refused(
    example: Example, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    distinct_model("bert-token", ["NN", "VB"], num_labels=2).save_pretrained(folder)
    letters_tokenizer().save_pretrained(folder)
    data = write_rows(tmp_path / "dev.json", [{"tokens": ["eu"], "ner_tags": ["NN"]}])
    done = example(
        SCRIPT,
        *("--model_name_or_path", folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data),
    )
    done.assert_error("tags must be O or begin with B- or I-, got NN")
