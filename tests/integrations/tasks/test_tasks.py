"""Tasks on real optimized models: the outputs of the libraries that they stand for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
pytest.importorskip("sentence_transformers", minversion="5.7")

from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import (  # noqa: E402
    Normalize,
    Pooling,
    Transformer,
)

from cpuaccel.errors import CpuaccelError, ModelError  # noqa: E402
from cpuaccel.integrations import sentence_transformers as accelerated  # noqa: E402
from cpuaccel.integrations import tasks  # noqa: E402
from cpuaccel.integrations.batching import Batcher, group_by_tokens  # noqa: E402
from tests.cli.generate.models import CHAT, make_llama, make_tokenizer  # noqa: E402
from tests.integrations.parts import TEXTS, assert_close_results, letters_tokenizer  # noqa: E402
from tests.models import encoder  # noqa: E402

VARIED = [" ".join(TEXTS[n % 5] for n in range(1 + number)) for number in (0, 7, 1, 2, 12, 1)]
PIPELINES = [["bettertransformer", "onednn"], ["jit"]]


def save(folder: Path, name: str, **config: Any) -> Path:
    encoder(name, **config).save_pretrained(folder)  # type: ignore[operator]
    letters_tokenizer().save_pretrained(folder)
    return folder


def in_groups(task: Any, items: list[Any], tokens: int = 60) -> list[Any]:
    rows = task.encode(items)
    outputs: dict[int, Any] = {}
    for group in group_by_tokens([row.tokens for row in rows], tokens):
        outputs.update(zip(group, task.run([rows[index] for index in group])))
    return [outputs[index] for index in range(len(items))]


def embedder(folder: Path, **options: Any) -> Path:
    transformer = Transformer(str(save(folder / "transformer", "bert")))
    pooling = Pooling(transformer.get_embedding_dimension(), include_prompt=False)
    modules = [transformer, pooling, Normalize()]
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder / "all"))
    return folder / "all"


@pytest.mark.parametrize("prompt", [None, "query"])
@pytest.mark.parametrize("pipeline", PIPELINES, ids=",".join)
def test_embeddings(tmp_path: Path, pipeline: list[str], prompt: str | None) -> None:
    options = {"prompts": {"query": "look for this "}, "default_prompt_name": prompt}
    folder = embedder(tmp_path, **options)
    expected = SentenceTransformer(str(folder), device="cpu").encode(VARIED)
    task = tasks.load_embedder(folder, pipeline)
    found = np.stack(in_groups(task, VARIED))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert task.dimensions == found.shape[1]
    assert task.report.applied == tuple(pipeline)
    assert set(task.calls) == {"optimized"}
    assert task.faults == []


@pytest.mark.parametrize("pipeline", PIPELINES, ids=",".join)
def test_scores(tmp_path: Path, pipeline: list[str]) -> None:
    folder = save(tmp_path, "bert-text", num_labels=1)
    pairs = [(TEXTS[n % 3], text) for n, text in enumerate(VARIED)]
    expected = CrossEncoder(str(folder), device="cpu").predict(pairs)
    task = tasks.load_reranker(folder, pipeline)
    np.testing.assert_allclose(in_groups(task, pairs), expected, atol=1e-5)
    assert set(task.calls) == {"optimized"}


def test_scores_with_a_default_prompt(tmp_path: Path) -> None:
    encoder = CrossEncoder(str(save(tmp_path, "bert-text", num_labels=1)), device="cpu")
    pairs = [(TEXTS[n % 3], text) for n, text in enumerate(VARIED)]
    without = encoder.preprocess(pairs)["attention_mask"].sum()
    encoder.prompts, encoder.default_prompt_name = {"query": "look for this "}, "query"
    expected = encoder.predict(pairs)
    task = tasks.Rerank(accelerated.optimize(encoder, ["jit"]))
    assert sum(row.tokens for row in task.encode(pairs)) > without
    np.testing.assert_allclose(in_groups(task, pairs), expected, atol=1e-6)


def test_truncated_embeddings(tmp_path: Path) -> None:
    model = SentenceTransformer(str(embedder(tmp_path)), truncate_dim=8, device="cpu")
    expected = model.encode(VARIED)
    task = tasks.Embed(accelerated.optimize(model, ["jit"]))
    found = np.stack(in_groups(task, VARIED))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert task.dimensions == found.shape[1] == 8


def test_a_classifier_is_no_reranker(tmp_path: Path) -> None:
    folder = save(tmp_path, "bert-text", num_labels=3)
    with pytest.raises(ModelError, match="3 labels"):
        tasks.load_reranker(folder, ["jit"])


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("pipeline", PIPELINES, ids=",".join)
def test_labels(tmp_path: Path, pipeline: list[str], labels: int) -> None:
    folder = save(tmp_path, "bert-text", num_labels=labels)
    expected = transformers.pipeline("text-classification", model=str(folder))(VARIED)
    found = in_groups(tasks.load_classifier(folder, pipeline), VARIED)
    assert_close_results([vars(label) for label in found], expected)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pipeline", PIPELINES, ids=",".join)
def test_entities(tmp_path: Path, pipeline: list[str], side: str) -> None:
    folder = save(tmp_path, "bert-token")
    letters_tokenizer(padding_side=side).save_pretrained(folder)
    pipe = transformers.pipeline(
        "token-classification", model=str(folder), aggregation_strategy="simple"
    )
    expected = pipe(VARIED, batch_size=1)
    assert any(expected)
    found = in_groups(tasks.load_token_classifier(folder, pipeline), VARIED)
    assert_close_results(found, expected)


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    make_llama().save_pretrained(tmp_path)
    make_tokenizer(CHAT).save_pretrained(tmp_path)
    return tmp_path


def test_generated_texts(decoder: Path) -> None:
    prompts = ["w3 w14 w15", "w1", [{"role": "user", "content": "w9 w2 w6 w5"}]]
    model = transformers.AutoModelForCausalLM.from_pretrained(decoder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    expected = []
    for prompt in prompts:
        if isinstance(prompt, str):
            inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        else:
            inputs = tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        ids = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        output = model.generate(**ids, max_new_tokens=8, pad_token_id=0)
        new = output[0, ids["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True))
    task = tasks.load_generator(decoder, ["onednn"], max_new_tokens=8)
    assert in_groups(task, prompts) == expected
    assert task.faults == []
    assert task.encode(["w1"])[0].tokens == 9


def test_an_unaccelerated_generator_is_a_fault(decoder: Path) -> None:
    task = tasks.load_generator(decoder, ["jit"], max_new_tokens=2)
    assert len(in_groups(task, ["w1"])) == 1
    assert "generate is not accelerated" in str(task.report.fallbacks)


def make_classifier(folder: Path) -> Any:
    return tasks.load_classifier(save(folder, "bert-text"), ["jit"])


def make_token_classifier(folder: Path) -> Any:
    return tasks.load_token_classifier(save(folder, "bert-token"), ["jit"])


def make_embedder(folder: Path) -> Any:
    return tasks.load_embedder(embedder(folder), ["jit"])


def make_reranker(folder: Path) -> Any:
    return tasks.load_reranker(save(folder, "bert-text", num_labels=1), ["jit"])


def make_generator(folder: Path) -> Any:
    make_llama().save_pretrained(folder)
    make_tokenizer(CHAT).save_pretrained(folder)
    return tasks.load_generator(folder, ["onednn"], max_new_tokens=4)


SAVED: dict[str, tuple[Any, Any, list[Any]]] = {
    "classifier": (make_classifier, tasks.load_classifier, VARIED),
    "token classifier": (make_token_classifier, tasks.load_token_classifier, VARIED),
    "embedder": (make_embedder, tasks.load_embedder, VARIED),
    "reranker": (make_reranker, tasks.load_reranker, [("a", text) for text in VARIED]),
    "generator": (make_generator, tasks.load_generator, ["w1 w2", "w3"]),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_task_is_loaded_with_its_pipeline(tmp_path: Path, name: str) -> None:
    make, load, items = SAVED[name]
    (tmp_path / "source").mkdir()
    task = make(tmp_path / "source")
    task.save(tmp_path / "saved")
    options = {"max_new_tokens": 4} if name == "generator" else {}
    loaded = load(tmp_path / "saved", **options)
    for found, expected in zip(in_groups(loaded, items), in_groups(task, items), strict=True):
        if isinstance(expected, (np.ndarray, float)):
            np.testing.assert_allclose(found, expected, atol=1e-6)
        else:
            assert found == expected
    assert loaded.report.pipeline == task.report.pipeline
    with pytest.raises(CpuaccelError, match="pipeline of its own"):
        load(tmp_path / "saved", ["jit"])


def test_a_switched_off_variant_is_a_fault(tmp_path: Path) -> None:
    task = tasks.load_classifier(save(tmp_path, "bert-text"), ["jit"])
    task.model.variants[0].off = "faulty"
    assert task.faults == ["faulty"]


def test_through_a_batcher_from_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    folder = embedder(tmp_path)
    expected = SentenceTransformer(str(folder), device="cpu").encode(VARIED)
    task = tasks.load_embedder(folder, ["bettertransformer", "onednn"])
    with Batcher(task, tokens=64) as batcher, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: batcher.compute([VARIED[n % 6]]), range(60)))
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer.outputs[0], expected[number % 6], atol=1e-5)
    assert torch.is_inference_mode_enabled() is False
