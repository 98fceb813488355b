"""The callable classes, each in this process: outputs, order, and rows that fail."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

ray = pytest.importorskip("ray")

import pyarrow as pa  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from cpuaccel.errors import CpuaccelError  # noqa: E402
from cpuaccel.integrations import ray as accelerated  # noqa: E402
from tests.integrations.parts import TEXTS, letters_tokenizer  # noqa: E402
from tests.models import encoder  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

CHEAP = ["jit"]
LONG = [" ".join(TEXTS[: 1 + n % 5]) for n in (4, 0, 2, 1, 3, 0, 4)]


@pytest.fixture(autouse=True)
def _assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assign 1 CPU without a cluster."""
    monkeypatch.setattr("cpuaccel.integrations.ray.data.use_assigned_cpus", lambda: 1)


def batch(items: list[Any]) -> dict[str, Any]:
    return {"text": np.array(items, dtype=object), "id": np.arange(len(items))}


def save(folder: Path, name: str) -> Path:
    encoder(name).save_pretrained(folder)  # type: ignore[operator]
    letters_tokenizer().save_pretrained(folder)
    return folder


def test_embeddings_in_order(folders: dict[str, Path]) -> None:
    worker = accelerated.Embed(folders["embeddings"], pipeline=CHEAP, to="vector", tokens=40)
    out = worker(batch(LONG))
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(LONG)
    np.testing.assert_allclose(out["vector"].to_pylist(), expected, atol=1e-5)
    assert out["error"].null_count == len(LONG)
    assert list(out["id"]) == list(range(len(LONG)))


def test_bad_rows_are_told_as_rows(folders: dict[str, Path]) -> None:
    worker = accelerated.Embed(folders["embeddings"], pipeline=CHEAP, tokens=40)
    items = ["a", None, "bb", 7, "\ud800", "c"]
    out = worker(batch(items))
    errors = out["error"].to_pylist()
    assert [error is None for error in errors] == [True, False, True, False, False, True]
    assert "NoneType" in errors[1]
    assert "int" in errors[3]
    values = out["output"].to_pylist()
    assert [value is None for value in values] == [error is not None for error in errors]
    good = worker(batch(["a", "bb", "c"]))["output"].to_pylist()
    np.testing.assert_allclose([values[0], values[2], values[5]], good, atol=1e-6)


def test_a_block_without_a_good_row_fails(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = accelerated.Embed(folders["embeddings"], pipeline=CHEAP)

    def broken(rows: object) -> object:
        raise RuntimeError("out of order")

    monkeypatch.setattr(worker._task, "run", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        worker(batch([None, *"abcdefghi"]))
    few = worker(batch(["a", "b", None]))  # such as a last block, of which all rows may be bad
    assert "out of order" in few["error"].to_pylist()[0]


def test_a_block_of_nulls_is_told_as_rows(folders: dict[str, Path]) -> None:
    out = accelerated.Embed(folders["embeddings"], pipeline=CHEAP)(batch([None, None]))
    assert out["error"].null_count == 0
    assert out["output"].null_count == 2


def test_a_column_of_errors_is_not_overwritten(folders: dict[str, Path]) -> None:
    worker = accelerated.Embed(folders["embeddings"], pipeline=CHEAP)
    with pytest.raises(CpuaccelError, match="'error' is there already"):
        worker({**batch(["a"]), "error": np.array([None])})


def test_no_rows(folders: dict[str, Path]) -> None:
    out = accelerated.Embed(folders["embeddings"], pipeline=CHEAP)(batch([]))
    assert len(out["output"]) == len(out["error"]) == 0


def test_labels(tmp_path: Path) -> None:
    folder = save(tmp_path, "bert-text")
    out = accelerated.Classify(folder, pipeline=CHEAP, tokens=40)(batch([*LONG, None]))
    expected = transformers.pipeline("text-classification", model=str(folder))(LONG)
    found = out["output"].to_pylist()
    assert [row["label"] for row in found[:-1]] == [row["label"] for row in expected]
    assert found[-1] is None


def test_entities(tmp_path: Path) -> None:
    folder = save(tmp_path, "bert-token")
    out = accelerated.ClassifyTokens(folder, pipeline=CHEAP, tokens=40)(batch([*LONG, None]))
    pipe = transformers.pipeline(
        "token-classification", model=str(folder), aggregation_strategy="simple"
    )
    expected = pipe(LONG)
    found = out["output"].to_pylist()
    assert any(expected)
    for mine, theirs in zip(found, expected):
        assert [(e["word"], e["start"], e["end"]) for e in mine] == [
            (e["word"], e["start"], e["end"]) for e in theirs
        ]
    assert found[-1] is None


def test_texts(folders: dict[str, Path]) -> None:
    options: dict[str, Any] = {"pipeline": ["onednn"], "max_new_tokens": 6}
    worker = accelerated.Generate(folders["chat"], tokens=30, **options)
    prompts = ["w3 w14 w15", "w1", "w9 w2 w6 w5"]
    out = worker(batch([*prompts, None]))
    alone = [worker(batch([prompt]))["output"][0].as_py() for prompt in prompts]
    assert out["output"].to_pylist() == [*alone, None]
    assert pa.types.is_string(out["output"].type)


def test_a_model_shared_for_another_kind(folders: dict[str, Path]) -> None:
    shared = accelerated.Shared("classify", "key", None)
    with pytest.raises(CpuaccelError, match="classify"):
        accelerated.Embed(shared)


def test_importing_imports_no_torch(python: Any) -> None:
    python("import cpuaccel.integrations.ray, sys; assert 'torch' not in sys.modules")
    assert torch.get_num_threads() == 1
