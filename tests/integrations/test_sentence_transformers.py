"""sentence-transformers with an optimized model: the same embeddings, computed by that model."""

import copy
import importlib.metadata
import math
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
pytest.importorskip("sentence_transformers", minversion="5.7")

from PIL import Image  # noqa: E402
from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer import modules  # noqa: E402
from sentence_transformers.sentence_transformer.modules import (  # noqa: E402
    Pooling,
    StaticEmbedding,
    Transformer,
)

import cpuaccel  # noqa: E402
from cpuaccel.cli.models.source import demo_folder  # noqa: E402
from cpuaccel.errors import ModelError  # noqa: E402
from cpuaccel.integrations.sentence_transformers import optimize, report  # noqa: E402
from cpuaccel.plugin.manager import PluginHost  # noqa: E402
from cpuaccel.testing.state import changed, model_state  # noqa: E402
from cpuaccel.tuning.decisions.result import Tuning  # noqa: E402
from tests.brief_searches import measure_briefly  # noqa: E402
from tests.conftest import Python  # noqa: E402
from tests.integrations.parts import TEXTS, letters_tokenizer  # noqa: E402
from tests.models import encoder  # noqa: E402
from tests.required import BF16, NATIVE, requires  # noqa: E402

BACKENDS = [["bettertransformer"], ["jit"], ["bettertransformer", "jit"]]

LENGTHS = [1, 90, 3, 40, 2, 7, 60, 1, 25, 120, 5]
VARIED = [" ".join(f"{TEXTS[n % 5]} {n}" for n in range(length)) for length in LENGTHS]
"""From one short sentence to more tokens than the models accept."""

Encode = Callable[[SentenceTransformer], Any]


def save_tiny(folder: Path, name: str, **config: Any) -> str:
    encoder(name, **config).save_pretrained(folder)  # type: ignore[operator]
    letters_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> SentenceTransformer:
    transformer = Transformer(save_tiny(tmp_path, "bert"))
    pooling = Pooling(transformer.get_embedding_dimension())
    return SentenceTransformer(
        modules=[transformer, pooling], prompts={"query": "look for this "}, device="cpu"
    )


@pytest.fixture
def minilm() -> SentenceTransformer:
    try:
        folder = demo_folder()
    except ModelError as error:
        pytest.skip(str(error))
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(params=["tiny", "minilm"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("backends", BACKENDS, ids=",".join)
def test_embeddings_match_and_every_call_is_optimized(
    model: SentenceTransformer, backends: list[str]
) -> None:
    fast = optimize(model, backends, strict=True)
    for batch_size in (1, 4):
        expected = model.encode(VARIED, batch_size=batch_size)
        before = report(fast).calls
        found = fast.encode(VARIED, batch_size=batch_size)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert report(fast).applied == tuple(backends)
        calls = math.ceil(len(VARIED) / batch_size)
        assert report(fast).calls - before == {"optimized": calls}


WAYS: dict[str, Encode] = {
    "one text": lambda m: m.encode(TEXTS[1]),
    "a tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True),
    "a list of tensors": lambda m: m.encode(TEXTS, convert_to_numpy=False),
    "normalized": lambda m: m.encode(TEXTS, normalize_embeddings=True),
    "with a prompt": lambda m: m.encode(TEXTS, prompt="passage about "),
    "with a named prompt": lambda m: m.encode(TEXTS, prompt_name="query"),
    "as queries": lambda m: m.encode_query(TEXTS),
    "of tokens": lambda m: m.encode(TEXTS, output_value="token_embeddings"),
    "truncated": lambda m: m.encode(TEXTS, truncate_dim=8),
    "on a named device": lambda m: m.encode(TEXTS, device="cpu"),
}


@pytest.mark.parametrize("encode", WAYS.values(), ids=list(WAYS))
def test_every_way_of_encoding(tiny: SentenceTransformer, encode: Encode) -> None:
    fast = optimize(tiny, ["bettertransformer"], strict=True)
    expected, found = encode(tiny), encode(fast)
    assert type(found) is type(expected)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), atol=1e-5)
    assert report(fast).calls == {"optimized": 1}


def test_different_calls_share_one_variant(tiny: SentenceTransformer) -> None:
    fast = optimize(tiny, ["jit"], strict=True)
    for encode in WAYS.values():
        encode(fast)
    assert len(report(fast).variants) == 1
    assert report(fast).calls == {"optimized": len(WAYS)}


@requires(*NATIVE)  # optimum fuses each layer into one operation
def test_padding_is_not_computed(tiny: SentenceTransformer) -> None:
    """The feed-forward layers compute only real tokens."""
    fast = optimize(tiny, ["bettertransformer"], strict=True)
    fast.encode(TEXTS)
    transformed = fast[0].auto_model.variants[0].model
    seen: list[int] = []
    feed = transformed.get_submodule("encoder.layer.0.intermediate")
    feed.register_forward_hook(lambda module, args, output: seen.append(output[..., 0].numel()))
    fast.encode(TEXTS)
    assert seen == [sum(len(tiny.tokenizer(text)["input_ids"]) for text in TEXTS)]


def test_the_callers_model_is_unchanged_and_shares_its_weights(tiny: SentenceTransformer) -> None:
    tiny.train()
    before = model_state(tiny)
    fast = optimize(tiny, ["bettertransformer", "jit"], strict=True)
    fast.encode(TEXTS)
    assert changed(before, model_state(tiny)) == []
    assert tiny.training
    assert not isinstance(tiny[0].auto_model, cpuaccel.OptimizedModel)
    mine, theirs = fast.parameters(), tiny.parameters()
    assert [p.data_ptr() for p in mine] == [p.data_ptr() for p in theirs]


def test_the_first_module_contains_the_optimized_model(
    tiny: SentenceTransformer,
) -> None:
    fast = optimize(tiny, ["jit"])
    assert isinstance(fast, SentenceTransformer)
    assert type(fast) is type(tiny)
    assert isinstance(fast[0].auto_model, cpuaccel.OptimizedModel)
    assert fast[0].auto_model.report is report(fast)
    assert fast.transformers_model is fast[0].auto_model
    assert "waiting   for the first call" in str(report(fast))
    assert fast.similarity_fn_name == tiny.similarity_fn_name
    assert fast.max_seq_length == tiny.max_seq_length


def test_the_model_that_encode_built_works_outside_of_it(tiny: SentenceTransformer) -> None:
    """encode builds in inference mode, whose tensors have limited uses."""
    fast = optimize(tiny, ["jit"], dtype="float32", strict=True)
    fast.encode(TEXTS)
    batch = tiny.tokenizer(TEXTS, padding=True, return_tensors="pt")
    output = fast[0].auto_model(**batch, return_dict=True)
    with torch.no_grad():
        expected = tiny[0].auto_model(**batch)
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state)
    assert report(fast).calls == {"optimized": 2}


@requires(BF16)
@pytest.mark.parametrize("backends", [[], ["jit"]], ids=["cast", "jit"])
def test_bfloat16_is_close_and_keeps_the_dtype(
    tiny: SentenceTransformer, backends: list[str]
) -> None:
    expected = tiny.encode(TEXTS, normalize_embeddings=True)
    fast = optimize(tiny, backends, dtype="bfloat16", strict=True)
    for _ in range(2):
        found = fast.encode(TEXTS, normalize_embeddings=True)
        assert found.dtype == expected.dtype
        assert np.sum(found * expected, axis=1).min() > 0.99
    assert report(fast).calls == {"optimized": 2}


@pytest.mark.parametrize("built", [False, True], ids=["building", "built"])
def test_threads_can_encode_concurrently(tiny: SentenceTransformer, built: bool) -> None:
    fast = optimize(tiny, ["bettertransformer"], strict=True)
    count = 4
    if built:
        fast.encode(VARIED, batch_size=3)
    expected = tiny.encode(VARIED)
    start = threading.Barrier(count)
    found: list[Any] = []

    def encode() -> None:
        start.wait()
        found.append(fast.encode(VARIED, batch_size=3, show_progress_bar=False))

    threads = [threading.Thread(target=encode) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    for embeddings in found:
        np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    assert set(report(fast).calls) == {"optimized"}
    assert len(report(fast).variants) == 1


def test_several_processes(tiny: SentenceTransformer) -> None:
    fast = optimize(tiny, ["bettertransformer"], strict=True)
    found = fast.encode(VARIED, device=["cpu", "cpu"], chunk_size=3)
    np.testing.assert_allclose(found, tiny.encode(VARIED), atol=1e-5)
    assert report(fast).calls == {}  # counted in the other processes


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))],
    ids=["deepcopy", "pickle"],
)
def test_copies_have_their_own_reports(
    tiny: SentenceTransformer, duplicate: Callable[[Any], Any]
) -> None:
    fast = optimize(tiny, ["bettertransformer"], strict=True)
    expected = fast.encode(TEXTS)
    copied = duplicate(fast)
    for _ in range(3):
        np.testing.assert_allclose(copied.encode(TEXTS), expected, atol=1e-5)
    assert report(copied).calls == {"optimized": 3}
    assert report(fast).calls == {"optimized": 1}
    assert duplicate(copied).encode(TEXTS).shape == expected.shape


def test_saving_writes_the_original(tiny: SentenceTransformer, tmp_path: Path) -> None:
    fast = optimize(tiny, ["jit"], strict=True)
    fast.encode(TEXTS)
    fast.save(str(tmp_path / "saved"))
    loaded = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert not isinstance(loaded[0].auto_model, cpuaccel.OptimizedModel)
    np.testing.assert_allclose(loaded.encode(TEXTS), tiny.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("backends", BACKENDS, ids=",".join)
def test_a_cross_encoder(backends: list[str], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert-text", num_labels=1)
    model = CrossEncoder(folder, device="cpu")
    fast = optimize(model, backends, strict=True)
    pairs = [(TEXTS[0], text) for text in VARIED]
    np.testing.assert_allclose(
        fast.predict(pairs, batch_size=4), model.predict(pairs, batch_size=4), atol=1e-5
    )
    order = [found["corpus_id"] for found in fast.rank(TEXTS[0], VARIED)]
    assert order == [found["corpus_id"] for found in model.rank(TEXTS[0], VARIED)]
    assert report(fast).calls == {"optimized": math.ceil(len(pairs) / 4) + 1}


def save_clip(folder: Path) -> str:
    """Save a small CLIP with its processor."""
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    tokens = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "vocab_size": 64}
    config = transformers.CLIPConfig(
        text_config={**sizes, **tokens, "hidden_size": 32, "max_position_embeddings": 128},
        vision_config={**sizes, "hidden_size": 32, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPModel(config).eval().save_pretrained(folder)
    size = {"height": 16, "width": 16}
    images = transformers.CLIPImageProcessor(size=size, crop_size=size)
    transformers.CLIPProcessor(images, letters_tokenizer()).save_pretrained(folder)
    return str(folder)


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(256, size=(20, 24, 3), dtype=np.uint8)) for _ in range(5)
    ]


@requires(*NATIVE)
@pytest.mark.filterwarnings("ignore:.*CLIPModel.*")
@pytest.mark.parametrize("module", ["CLIPModel", "Transformer"])
def test_texts_and_images_by_clip(tmp_path: Path, module: str) -> None:
    """They run what get_text_features and get_image_features call."""
    kinds: Any = modules
    model = SentenceTransformer(modules=[getattr(kinds, module)(save_clip(tmp_path))], device="cpu")
    fast = optimize(model, ["onednn"], strict=True)
    for inputs in (TEXTS, pictures(), TEXTS[:2]):
        found, expected = (m.encode(inputs, batch_size=3) for m in (fast, model))
        assert found.shape == (len(inputs), 16)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
        assert not np.allclose(found[0], found[1], atol=1e-3)
    assert report(fast).calls == {"optimized": 5}
    for tower in ("text_model", "vision_model"):
        part = report(fast).parts[tower]
        assert part.applied == ("onednn",)
        assert set(part.calls) == {"optimized"}


def test_an_unavailable_step_is_logged(
    tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    if cpuaccel.explain(torch.nn.Linear(1, 1), ["ipex"]).steps[0].verdict:
        pytest.skip("ipex is available")
    fast = optimize(tiny, ["ipex", "jit"])
    np.testing.assert_allclose(fast.encode(TEXTS), tiny.encode(TEXTS), atol=1e-5)
    assert report(fast).applied == ("jit",)
    assert [r.getMessage() for r in caplog.records if r.name == "cpuaccel"] == [
        str(report(fast).planned[0])
    ]


def test_another_model_is_refused(tiny: SentenceTransformer) -> None:
    with pytest.raises(ModelError) as caught:
        optimize(tiny[0].auto_model, ["jit"])
    assert str(caught.value) == (
        "model must be a SentenceTransformer or CrossEncoder, got BertModel. Use "
        "cpuaccel.optimize for other models"
    )


def test_a_model_that_is_not_optimized_has_no_report(tiny: SentenceTransformer) -> None:
    with pytest.raises(ModelError) as caught:
        report(tiny)
    assert str(caught.value) == (
        "this SentenceTransformer is not optimized, so it has no report. Pass the model that "
        "optimize returned"
    )


def test_a_model_without_a_transformer_is_refused() -> None:
    embedding = StaticEmbedding(letters_tokenizer(), embedding_dim=8)
    with pytest.raises(ModelError) as caught:
        optimize(SentenceTransformer(modules=[embedding], device="cpu"), ["jit"])
    assert str(caught.value) == (
        "SentenceTransformer must start with a Transformer, got StaticEmbedding. Only "
        "transformers can be optimized"
    )


def test_the_error_without_the_package(python: Python) -> None:
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "import cpuaccel.integrations\n"
        "import cpuaccel.integrations.sentence_transformers"
    )
    done = python(code, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: cpuaccel.integrations.sentence_transformers needs sentence-transformers >= "
        "5.7, which can't be imported (import of sentence_transformers halted; None in "
        'sys.modules). Run: pip install ".[sentence-transformers]"'
    )


@requires("torch>=2.8")
def test_a_search_measures_the_batches_of_encode(
    tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = importlib.metadata.entry_points(group="cpuaccel")
    jit = PluginHost(entry for entry in offered if entry.name == "jit")
    monkeypatch.setattr("cpuaccel.tuning.auto.plugin_host", lambda: jit)
    measure_briefly(monkeypatch)
    fast = optimize(tiny, "auto", example_texts=TEXTS, budget=500, time_limit=500, cache=False)
    tuning = report(fast).tuning
    assert isinstance(tuning, Tuning)
    (shape,) = tuning.shapes
    assert shape.rows == len(TEXTS)
    assert [row.candidate.name for row in tuning.rows] == ["jit"]
    np.testing.assert_allclose(fast.encode(TEXTS), tiny.encode(TEXTS), atol=1e-5)
    # Chance decides between two tiny models. Either way no variant is missing.
    calls = report(fast).calls
    assert calls == {"optimized" if tuning.winner.steps else "fallback:not_applied": 1}


def test_a_search_needs_texts(tiny: SentenceTransformer) -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="example_texts= together"):
        optimize(tiny, "auto")
    with pytest.raises(cpuaccel.CpuaccelError, match="example_texts= together"):
        optimize(tiny, ["jit"], example_texts=TEXTS)
    with pytest.raises(cpuaccel.CpuaccelError, match="budget= needs"):
        optimize(tiny, ["jit"], budget=3)
