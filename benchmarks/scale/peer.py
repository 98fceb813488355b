"""Another engine for embeddings, in its own environment: see ``embeddings.py``.

Reads lines with JSON lists of texts, and answers each with the seconds and the embeddings.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Embed = Callable[[list[str]], Any]


def fastembed(folder: str, threads: int) -> Embed:
    """fastembed, on ONNX Runtime."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/model"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("local/model", specific_model_path=folder, threads=threads)
    # Its tokenizer truncates to the longest input of the model instead of that of the encoder.
    model.model.tokenizer.enable_truncation(256)
    return lambda texts: list(model.embed(texts, batch_size=32))


def infinity(folder: str, threads: int) -> Embed:
    """infinity-emb, on PyTorch, which sorts and batches by itself."""
    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    torch.set_num_threads(threads)
    loop = asyncio.new_event_loop()
    engine = AsyncEmbeddingEngine.from_args(
        EngineArgs(
            model_name_or_path=folder,
            engine="torch",
            device="cpu",
            dtype="float32",
            bettertransformer=False,
            compile=False,
            batch_size=32,
            lengths_via_tokenize=True,
        )
    )
    loop.run_until_complete(engine.astart())
    return lambda texts: loop.run_until_complete(engine.embed(sentences=texts))[0]


def main() -> None:
    """Answer each line."""
    engine, folder, threads = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr  # some engines print
    embed = {"fastembed": fastembed, "infinity": infinity}[engine](folder, int(threads))
    for line in sys.stdin:
        texts = json.loads(line)
        begun = time.perf_counter()
        vectors = np.stack(embed(texts)).astype(np.float32)
        seconds = time.perf_counter() - begun
        encoded = base64.b64encode(vectors.tobytes()).decode()
        print(json.dumps({"seconds": seconds, "vectors": encoded}), file=answers, flush=True)


if __name__ == "__main__":
    main()
