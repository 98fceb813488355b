"""Use what one extra brings, with tiny models; ``scripts/check_release.py`` runs it.

    python -I scripts/use_extra.py EXTRA

It imports the installed package: ``-I`` leaves the folder of this script out of the path.
"""

import csv
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cpuaccel

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ["ab cd", "a longer text than the first", "x"] * 4
SCRIPTS = Path(__file__).resolve().parent


def main() -> None:
    """Use the extra that the command line names."""
    (extra,) = sys.argv[1:]
    if not cpuaccel.__file__.startswith(sys.prefix):
        sys.exit(f"cpuaccel is imported from {cpuaccel.__file__}, not from {sys.prefix}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CPUACCEL_CACHE"] = f"{folder}/cache"
        os.chdir(folder)
        USES[extra]()


def use_default() -> None:
    """Optimize a module with the pipeline that suits this host."""
    _apply(None, _network())


def _apply(backends: list[str] | None, model: Any, **batch: torch.Tensor) -> Any:
    """Optimize a model, check that its steps are applied and serve a call, and return it.

    The default pipeline has an optional step, which is skipped where it does not suit the model.
    """
    inputs: Any = batch or torch.ones(2, 8)
    chosen = {} if backends is None else {"backends": backends}
    fast = cpuaccel.optimize(model, example_inputs=inputs, **chosen)
    with torch.no_grad():
        fast(**batch) if batch else fast(inputs)
    applied = fast.report.applied if backends is None else fast.report.applied == tuple(backends)
    if not applied or fast.report.calls != {"optimized": 1}:
        sys.exit(f"not applied, or not called:\n{fast.report}")
    return fast


def _network() -> torch.nn.Module:
    layers = [torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8)]
    return torch.nn.Sequential(*layers).eval()


def use_backends(*names: str) -> Callable[[], None]:
    """Return a function that applies these backends to a module without Transformers."""

    def use() -> None:
        backend = cpuaccel.backends()[names[0]]
        verdict = backend(backend.Options()).check(cpuaccel.host())
        if not verdict and names[0] == "zentorch":  # it supports processors of one vendor
            print(f"not used: {verdict}")
        else:
            _apply([*names], _network())

    return use


def use_transformers() -> None:
    """Optimize a Transformers model."""
    _apply(None, _bert("BertModel"), **_batch())


def use_bettertransformer() -> None:
    """Apply optimum's BetterTransformer."""
    fast = _apply(["bettertransformer"], _bert("BertModel"), **_batch())
    if fast.report.outcomes[0].evidence["implementation"] != "optimum":
        sys.exit(f"not optimum's:\n{fast.report}")


def _bert(name: str) -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        attn_implementation="eager",
    )
    return getattr(transformers, name)(config).eval()


def _batch() -> dict[str, torch.Tensor]:
    mask = torch.ones(4, 8, dtype=torch.long)
    mask[2:, 4:] = 0
    return {"input_ids": torch.randint(5, 60, mask.shape), "attention_mask": mask}


def use_sentence_transformers() -> None:
    """Encode texts with an optimized embedder."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from cpuaccel.integrations import sentence_transformers as accelerated

    embedder = SentenceTransformer(str(_save_embedder()), device="cpu")
    fast = accelerated.optimize(embedder)
    np.testing.assert_allclose(fast.encode(TEXTS), embedder.encode(TEXTS), atol=1e-4)
    report = accelerated.report(fast)
    if not report.applied:
        sys.exit(f"not applied:\n{report}")


def _save_embedder() -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(_save_bert("BertModel")))
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save("embedder")
    return Path("embedder").resolve()


def _save_bert(name: str) -> Path:
    import tokenizers
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, sep_token="[SEP]", **special
    )
    tokenizer.save_pretrained("bert")
    _bert(name).save_pretrained("bert")
    return Path("bert").resolve()


def use_serving() -> None:
    """Serve embeddings over HTTP by uvicorn, and read the metrics."""
    environment = {**os.environ, "EMBEDDINGS": str(_save_embedder())}
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port)],
        cwd=SCRIPTS.parent / "examples" / "serving",
        env=environment,
    )
    try:
        answer = json.loads(_post(f"http://127.0.0.1:{port}/v1/embeddings", {"input": TEXTS[:2]}))
        if len(answer["data"]) != 2:
            sys.exit(f"expected 2 embeddings, got {answer}")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as metrics:
            if b"cpuaccel" not in metrics.read():
                sys.exit("no metrics of cpuaccel at /metrics")
    finally:
        server.terminate()
        server.wait()


def use_litserve() -> None:
    """Serve embeddings by LitServe."""
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_run_litserve, args=(str(_save_embedder()), port))
    server.start()
    try:
        answer = json.loads(_post(f"http://127.0.0.1:{port}/predict", {"input": TEXTS[0]}))
        if len(answer["output"]) != 32:
            sys.exit(f"expected 32 numbers, got {answer}")
    finally:
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGTERM)
        server.join()


def _run_litserve(folder: str, port: int) -> None:
    os.setpgrp()  # LitServe's own processes outlive it
    import litserve

    from cpuaccel.integrations.litserve import TaskAPI
    from cpuaccel.integrations.tasks import load_embedder

    api = TaskAPI(load_embedder, folder, max_batch_size=4)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=port, generate_client_file=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _post(url: str, body: object, patience: float = 120) -> bytes:
    """Send a request, again while the server starts."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    end = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            sys.exit(f"{url} answered {error.code}: {error.read().decode()}")
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def use_ray() -> None:
    """Embed rows with Ray Data, and start the application of Ray Serve."""
    import ray
    from ray import serve

    from cpuaccel.integrations import ray as accelerated
    from cpuaccel.integrations.ray.serve import application

    folder = str(_save_embedder())
    ray.init(num_cpus=2, include_dashboard=False)
    rows = ray.data.from_items([{"text": text} for text in TEXTS]).map_batches(
        accelerated.Embed,
        fn_constructor_kwargs={"model": folder, "column": "text", "to": "embedding"},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=1),
        num_cpus=1,
    )
    found = rows.take_all()
    if len(found) != len(TEXTS) or any(len(row["embedding"]) != 32 for row in found):
        sys.exit(f"expected {len(TEXTS)} rows of 32 numbers, got {found[:1]}")
    port = _free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(application(embeddings=folder, num_replicas=1, ray_actor_options={"num_cpus": 1}))
    _post(f"http://127.0.0.1:{port}/v1/embeddings", {"input": TEXTS[:2]})
    serve.shutdown()
    ray.shutdown()


def use_spark() -> None:
    """Embed rows in Spark; needs Java."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import SparkSession

    from cpuaccel.integrations import spark as in_spark

    session = SparkSession.builder.master("local[1]").getOrCreate()
    embed = predict_batch_udf(
        in_spark.embed(str(_save_embedder())), return_type=in_spark.EMBEDDING, batch_size=4
    )
    texts = session.createDataFrame([(text,) for text in TEXTS], ["text"])
    found = texts.withColumn("out", embed("text")).select("out.*").collect()
    if len(found) != len(TEXTS) or any(len(row.embedding) != 32 for row in found):
        sys.exit(f"expected {len(TEXTS)} rows of 32 numbers, got {found[:1]}")
    session.stop()


def use_trainer() -> None:
    """Evaluate by Trainer."""
    from transformers import default_data_collator

    from cpuaccel.integrations.trainer import CpuaccelArguments, CpuaccelTrainer

    rows = [
        {"input_ids": [2, 9, 8, 3], "attention_mask": [1, 1, 1, 1], "labels": number % 2}
        for number in range(4)
    ]
    trainer = CpuaccelTrainer(
        model=_bert("BertForSequenceClassification"),
        args=CpuaccelArguments(output_dir="out", jit_mode_eval=True, report_to="none"),
        eval_dataset=rows,
        data_collator=default_data_collator,
    )
    metrics = trainer.evaluate()
    if metrics["eval_cpuaccel_jit_applied"] != 1:
        sys.exit(f"jit was not applied: {metrics}")


def use_examples() -> None:
    """Run one of the examples."""
    with Path("dev.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence1", "label"], *((text, 0) for text in TEXTS)])
    command = [
        *(sys.executable, SCRIPTS.parent / "examples" / "text_classification" / "run_glue.py"),
        *("--model_name_or_path", _save_bert("BertForSequenceClassification"), "--do_eval"),
        *("--validation_file", "dev.csv", "--output_dir", "out", "--jit_mode_eval"),
    ]
    subprocess.run(command, check=True)
    if "eval_accuracy" not in json.loads(Path("out/all_results.json").read_text(encoding="utf-8")):
        sys.exit("no eval_accuracy in all_results.json")


def use_report() -> None:
    """Write the page of a search."""
    _cpuaccel("tune", "config:bert-tiny", "--budget", 120, "--html", "page.html")
    if "<svg" not in Path("page.html").read_text(encoding="utf-8"):
        sys.exit("no chart in page.html")


def use_demo() -> None:
    """Time pipelines on the model of the demo."""
    _cpuaccel("bench", "demo", "--backends", "onednn", "--rounds", 3)


def use_test() -> None:
    """Run some of the tests of the source archive, which need neither Transformers nor engines."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/planning"]
    subprocess.run(command, cwd=SCRIPTS.parent, check=True)


def _cpuaccel(*arguments: object) -> None:
    command = [str(Path(sys.executable).with_name("cpuaccel")), *(str(each) for each in arguments)]
    subprocess.run(command, check=True)


USES: dict[str, Callable[[], None]] = {
    "none": use_default,
    "bettertransformer": use_bettertransformer,
    "demo": use_demo,
    "examples": use_examples,
    "ipex": use_backends("ipex", "jit"),
    "litserve": use_litserve,
    "onnxruntime": use_backends("onnxruntime"),
    "openvino": use_backends("openvino"),
    "openvino-int8": use_backends("openvino_int8"),
    "ray": use_ray,
    "spark": use_spark,
    "report": use_report,
    "sentence-transformers": use_sentence_transformers,
    "serving": use_serving,
    "test": use_test,
    "trainer": use_trainer,
    "transformers": use_transformers,
    "zentorch": use_backends("zentorch"),
}
"""What is done with each extra of ``setup.cfg``."""


if __name__ == "__main__":
    main()
