"""The application that ``uvicorn service:app`` runs, for the models that the environment names."""

import os

from cpuaccel.integrations.http import create_app
from cpuaccel.integrations.tasks import load_embedder, load_generator, load_reranker

embeddings, rerank, chat = (os.environ.get(name) for name in ("EMBEDDINGS", "RERANK", "CHAT"))

app = create_app(
    embeddings=load_embedder(embeddings) if embeddings else None,
    rerank=load_reranker(rerank) if rerank else None,
    chat=load_generator(chat) if chat else None,
)
