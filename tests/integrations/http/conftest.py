"""Folders with tiny models, and tasks on them.

Imports are in the fixtures: the files of tests skip where a package is missing, not this one.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

ENCODING = ["bettertransformer", "onednn"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from tests.cli.generate.models import CHAT, make_llama, make_tokenizer
    from tests.integrations.parts import letters_tokenizer
    from tests.models import encoder

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("served")
    encoder("bert").save_pretrained(root / "bert")  # type: ignore[operator]
    letters_tokenizer().save_pretrained(root / "bert")
    transformer = Transformer(str(root / "bert"))
    modules = [transformer, Pooling(transformer.get_embedding_dimension())]
    SentenceTransformer(modules=modules, device="cpu").save(str(root / "embeddings"))
    encoder("bert-text", num_labels=1).save_pretrained(root / "rerank")  # type: ignore[operator]
    letters_tokenizer().save_pretrained(root / "rerank")
    make_llama().save_pretrained(root / "chat")
    make_tokenizer(CHAT).save_pretrained(root / "chat")
    return {kind: root / kind for kind in ("embeddings", "rerank", "chat")}


@pytest.fixture(scope="session")
def built_embedder(folders: dict[str, Path]) -> Any:
    from cpuaccel.integrations import tasks

    return tasks.load_embedder(folders["embeddings"], ENCODING)


@pytest.fixture
def embedder(built_embedder: Any) -> Any:
    """A task of the test's own, whose methods it may replace, on a shared optimized model."""
    return copy.copy(built_embedder)


@pytest.fixture
def reranker(folders: dict[str, Path]) -> Any:
    from cpuaccel.integrations import tasks

    return tasks.load_reranker(folders["rerank"], ENCODING)


@pytest.fixture(scope="session")
def chatter(folders: dict[str, Path]) -> Any:
    from cpuaccel.integrations import tasks

    return tasks.load_generator(folders["chat"], ["onednn"], max_new_tokens=12)
