r"""Rows a second of embeddings: cpuaccel's tasks, sentence-transformers and other engines.

    python benchmarks/scale/embeddings.py SQUAD.json --rows 20000 --threads 2 \
        --fastembed ~/venv-fastembed/bin/python --infinity ~/venv-infinity/bin/python

Engines embed one slice of the texts after the other, in turns. Those of other environments
(``pip install fastembed``; ``pip install "infinity-emb[torch]"``) run in processes of their own,
measure there, and are stopped between their turns, since some wait busily. All have the same
weights, and as many threads. Accuracy is that of a search: for how many questions the nearest
paragraph is the one that answers them.
"""

import argparse
import atexit
import base64
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from texts import mixed_texts, paragraph_of_question

from cpuaccel.cli.models.source import demo_folder
from cpuaccel.integrations.batching.groups import group_by_tokens

Vectors = np.ndarray[Any, Any]
Embed = Callable[[list[str]], tuple[Vectors, float]]
"""Returns the embeddings, and the seconds."""


def timed(embed: Callable[[list[str]], Vectors]) -> Embed:
    """Measure in this process."""

    def run(texts: list[str]) -> tuple[Vectors, float]:
        begun = time.perf_counter()
        vectors = embed(texts)
        return vectors, time.perf_counter() - begun

    return run


def peer(python: str, engine: str, folder: str, threads: int) -> Embed:
    """Another engine, in the environment of another Python."""
    script = Path(__file__).with_name("peer.py")
    process = subprocess.Popen(  # noqa: S603
        [python, "-I", str(script), engine, folder, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    atexit.register(process.kill)
    assert process.stdin is not None
    assert process.stdout is not None

    def run(texts: list[str]) -> tuple[Vectors, float]:
        process.send_signal(signal.SIGCONT)
        print(json.dumps(texts), file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGSTOP)
        values = np.frombuffer(base64.b64decode(answer["vectors"]), np.float32)
        return values.reshape(len(texts), -1), answer["seconds"]

    return run


def write_onnx(source: str, folder: str) -> None:
    """Write the model for ONNX Runtime, with its tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    model = AutoModel.from_pretrained(source).eval()
    model.config.save_pretrained(folder)
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {0: "batch", 1: "length"}
    names = ("input_ids", "attention_mask", "token_type_ids")
    torch.onnx.export(
        model,
        kwargs={name: ids.clone() for name in names},  # one tensor would become one input
        f=f"{folder}/model.onnx",
        input_names=list(names),
        output_names=["last_hidden_state"],
        dynamic_shapes=dict.fromkeys(names, axes),
        dynamo=True,
        external_data=False,
    )


def eager(folder: str) -> Embed:
    """sentence-transformers, which sorts by length and cuts by 32 rows."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    return timed(lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False))


def cpuaccel(folder: str, pipeline: list[str] | None = None, tokens: int = 4096) -> Embed:
    """A task, as Ray's workers call it."""
    from cpuaccel.integrations.tasks import load_embedder

    task = load_embedder(folder, pipeline)

    def embed(texts: list[str]) -> Vectors:
        rows = task.encode(texts)
        outputs: dict[int, Any] = {}
        for group in group_by_tokens([row.tokens for row in rows], tokens):
            outputs.update(zip(group, task.run([rows[index] for index in group])))
        return np.stack([outputs[index] for index in range(len(texts))])

    return timed(embed)


def accuracy(texts: list[str], vectors: Vectors, paragraphs: dict[str, str]) -> float:
    """Return the share of the questions whose nearest paragraph is their own."""
    place = {text: index for index, text in enumerate(texts)}
    questions = [q for q, paragraph in paragraphs.items() if {q, paragraph} <= place.keys()]
    searched = list(dict.fromkeys(paragraphs[question] for question in questions))
    scores = vectors[[place[q] for q in questions]] @ vectors[[place[p] for p in searched]].T
    nearest = scores.argmax(axis=1)
    right = [searched[index] == paragraphs[q] for index, q in zip(nearest, questions)]
    return sum(right) / len(right)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("squad", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", default="eager,cpuaccel")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096])
    parser.add_argument("--fastembed", help="Python of an environment with fastembed")
    parser.add_argument("--infinity", help="Python of an environment with infinity-emb")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = str(demo_folder())
    engines: dict[str, Embed] = {}
    for name in arguments.engines.split(","):
        if name == "eager":
            engines[name] = eager(folder)
        else:
            pipeline = None if name == "cpuaccel" else name.split("+")
            for tokens in arguments.tokens:
                engines[f"{name} {tokens}"] = cpuaccel(folder, pipeline, tokens)
    if arguments.fastembed:
        exported = tempfile.mkdtemp()
        write_onnx(folder, exported)
        engines["fastembed"] = peer(arguments.fastembed, "fastembed", exported, arguments.threads)
    if arguments.infinity:
        engines["infinity"] = peer(arguments.infinity, "infinity", folder, arguments.threads)
    texts = mixed_texts(arguments.squad, arguments.rows)
    size = arguments.rows // arguments.slices
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for embed in engines.values():
        embed(texts[:256])
    found: dict[str, list[Vectors]] = {name: [] for name in engines}
    for start in range(0, arguments.rows, size):
        part = texts[start : start + size]
        for name, embed in engines.items():
            vectors, taken_here = embed(part)
            found[name].append(vectors)
            seconds[name].append(taken_here)
    base = next(iter(engines))
    paragraphs = paragraph_of_question(arguments.squad)
    expected = np.concatenate(found[base])
    for name, taken in seconds.items():
        vectors = np.concatenate(found[name])
        ratios = [b / t for b, t in zip(seconds[base], taken)]
        print(
            f"{name:24} {arguments.rows / sum(taken):6.0f} rows/s   "
            f"{statistics.median(ratios):.2f}x of {base} [{min(ratios):.2f}, {max(ratios):.2f}]   "
            f"differs by {np.abs(vectors - expected).max():.0e}   "
            f"nearest is right {accuracy(texts, vectors, paragraphs):.2%}"
        )


if __name__ == "__main__":
    main()
