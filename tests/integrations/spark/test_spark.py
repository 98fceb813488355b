"""Functions for ``predict_batch_udf`` in the executors of a real cluster."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.required import requires

pytestmark = [
    requires("transformers>=5", "sentence-transformers>=5.7", "pyspark>=4.3", "command: java"),
    pytest.mark.filterwarnings("default"),
]

pytest.importorskip("pyspark")

from pyspark.ml.functions import predict_batch_udf  # noqa: E402
from pyspark.sql.types import LongType, StringType, StructField, StructType  # noqa: E402

from cpuaccel.errors import CpuaccelError  # noqa: E402
from cpuaccel.integrations import spark as accelerated  # noqa: E402
from tests.integrations.parts import TEXTS, letters_tokenizer  # noqa: E402
from tests.models import encoder  # noqa: E402

CHEAP = ["jit"]


def texts(count: int) -> list[str]:
    return [
        " ".join(TEXTS[(n + k) % 5] for k in range(1 + n * 7 % 4)) + f" {n}" for n in range(count)
    ]


def compute(
    session: Any, items: list[Any], make: Any, kind: StructType, batch_size: int = 16
) -> Any:
    """Return the rows of 4 partitions, by their number."""
    rows = session.createDataFrame(list(enumerate(items)), "id long, text string").repartition(4)
    udf = predict_batch_udf(make, return_type=kind, batch_size=batch_size)
    found = rows.withColumn("out", udf("text")).select("id", "out.*").collect()
    return {row.id: row for row in found}


def save(folder: Path, name: str) -> Path:
    encoder(name).save_pretrained(folder)  # type: ignore[operator]
    letters_tokenizer().save_pretrained(folder)
    return folder


def test_embeddings_from_one_build(session: Any, folders: dict[str, Path]) -> None:
    from sentence_transformers import SentenceTransformer

    model = accelerated.share(session, folders["embeddings"], pipeline=CHEAP)
    items: list[Any] = [None, *texts(120), None]
    found = compute(session, items, accelerated.embed(model, tokens=64), accelerated.EMBEDDING)
    assert sorted(found) == list(range(122))
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(texts(120))
    for number, vector in enumerate(expected, start=1):
        np.testing.assert_allclose(found[number].embedding, vector, atol=1e-5)
        assert found[number].error is None
        assert found[number].served_by == "jit"
    for bad in (found[0], found[121]):
        assert (bad.embedding, bad.served_by) == (None, None)
        assert "NoneType" in bad.error


def test_one_model_for_each_worker_with_the_threads_of_its_task(
    session: Any, folders: dict[str, Path]
) -> None:
    folder = str(folders["embeddings"])

    def make() -> Any:
        import torch

        accelerated.embed(folder, pipeline=CHEAP)()
        made = os.urandom(4).hex()

        def predict(items: Any) -> dict[str, Any]:
            count = len(items)
            return {
                "process": np.full(count, os.getpid()),
                "threads": np.full(count, torch.get_num_threads()),
                "made": np.full(count, made, dtype=object),
            }

        return predict

    kind = StructType(
        [
            StructField("process", LongType()),
            StructField("threads", LongType()),
            StructField("made", StringType()),
        ]
    )
    found = compute(session, texts(80), make, kind, batch_size=4).values()
    assert {row.threads for row in found} == {1}
    assert len({row.made for row in found}) == len({row.process for row in found})


def test_labels_entities_and_generated_texts(
    session: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    from cpuaccel.integrations import tasks

    folder = save(tmp_path / "text", "bert-text")
    items = texts(6)
    found = compute(session, items, accelerated.classify(folder), accelerated.LABEL)
    classifier = tasks.load_classifier(folder)
    for number, label in enumerate(classifier.run(classifier.encode(items))):
        assert found[number].label == label.label
        assert found[number].score == pytest.approx(label.score, abs=1e-5)

    folder = save(tmp_path / "tokens", "bert-token")
    found = compute(session, items, accelerated.classify_tokens(folder), accelerated.ENTITIES)
    finder = tasks.load_token_classifier(folder)
    for number, entities in enumerate(finder.run(finder.encode(items))):
        assert [each.word for each in found[number].entities] == [e["word"] for e in entities]
        assert [each.start for each in found[number].entities] == [e["start"] for e in entities]

    make = accelerated.generate(folders["chat"], pipeline=["onednn"], max_new_tokens=4)
    found = compute(session, ["w3 w14", None], make, accelerated.TEXT)
    assert found[0].generated
    assert found[0].served_by == "onednn"
    assert found[1].generated is None


def test_a_killed_worker_loses_nothing(
    session: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder, marker = str(folders["embeddings"]), tmp_path / "killed"

    def make() -> Any:
        predict = accelerated.embed(folder, pipeline=CHEAP)()

        def once(items: Any) -> Any:
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return predict(items)

        return once

    found = compute(session, texts(60), make, accelerated.EMBEDDING)
    assert marker.exists()
    assert sorted(found) == list(range(60))
    assert {row.error for row in found.values()} == {None}


def test_a_model_at_fault_fails_the_job(session: Any, folders: dict[str, Path]) -> None:
    model = accelerated.share(session, folders["embeddings"], pipeline=CHEAP)
    with pytest.raises(Exception, match="was shared to embed, but classify was asked for"):
        compute(session, texts(4), accelerated.classify(model), accelerated.LABEL)


def test_outside_of_a_task() -> None:
    with pytest.raises(CpuaccelError, match="predict_batch_udf"):
        accelerated.embed("folder")()
