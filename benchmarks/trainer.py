"""Compare Transformers' Trainer with --jit_mode_eval --use_ipex with cpuaccel's pipeline.

Needs the classic stack: Transformers 5 removed these options. Both evaluate the trained
question-answering model in turn, on the same windows of SQuAD in the same batches. The metrics are
the mean span loss and the share of windows whose start and end are both correct.

    python benchmarks/trainer.py QA_FOLDER [--windows N] [--rounds N]

QA_FOLDER contains ``model/`` and ``squad-v1.1-dev-half.json``.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

import cpuaccel

LENGTH = 384
BATCH = 16


def windows(folder: Path, count: int) -> list[dict[str, torch.Tensor]]:
    """Make the first windows of the data, with the positions of their answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    articles = json.loads((folder / "squad-v1.1-dev-half.json").read_text(encoding="utf-8"))["data"]
    found: list[dict[str, torch.Tensor]] = []
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                encoded = tokenizer(
                    question["question"].strip(),
                    paragraph["context"],
                    truncation="only_second",
                    max_length=LENGTH,
                    padding="max_length",
                    return_tensors="pt",
                )
                answer = question["answers"][0]
                end = answer["answer_start"] + len(answer["text"]) - 1
                start_token = encoded.char_to_token(0, answer["answer_start"], 1)
                end_token = encoded.char_to_token(0, end, 1)
                if start_token is None or end_token is None:  # cut off
                    continue
                row = {name: tensor[0] for name, tensor in encoded.items()}
                row["start_positions"] = torch.tensor(start_token)
                row["end_positions"] = torch.tensor(end_token)
                found.append(row)
                if len(found) == count:
                    return found
    return found


def exact(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the share of windows whose start and end are both correct."""
    starts, ends = (np.argmax(logits, axis=1) for logits in prediction.predictions)
    start_labels, end_labels = prediction.label_ids
    return {"exact": float(np.mean((starts == start_labels) & (ends == end_labels)))}


def trainer(model: torch.nn.Module, **arguments: bool) -> Trainer:
    """Make a Trainer for evaluation."""
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="unused",
            per_device_eval_batch_size=BATCH,
            use_cpu=True,
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
            label_names=["start_positions", "end_positions"],
            **arguments,
        ),
        compute_metrics=exact,
    )


def main() -> None:
    """Evaluate all in turn, and print metrics, medians and the ratio of pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--windows", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    data = windows(options.folder, options.windows)

    def load() -> torch.nn.Module:
        model: torch.nn.Module = AutoModelForQuestionAnswering.from_pretrained(
            options.folder / "model", torch_dtype=torch.float32
        )
        return model.eval()

    batch = {name: torch.stack([row[name] for row in data[:BATCH]]) for name in data[0]}
    fast = cpuaccel.optimize(load(), ["ipex", "jit"], example_inputs=batch, strict=True)
    print(fast.report)
    runs = {
        "eager": trainer(load()),
        "Trainer --jit_mode_eval --use_ipex": trainer(load(), use_ipex=True, jit_mode_eval=True),
        "cpuaccel ipex,jit": trainer(fast),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    metrics: dict[str, dict[str, float]] = {}
    for round_number in range(options.rounds + 1):
        for name, run in runs.items():
            begun = time.perf_counter()
            metrics[name] = run.evaluate(data)
            if round_number:  # the first round is warm-up
                # Trainer traces in every evaluation; report that time separately.
                compiling = metrics[name].get("eval_jit_compilation_time", 0.0)
                seconds[name].append(time.perf_counter() - begun - compiling)
    for name in runs:
        values = metrics[name]
        print(
            f"{name:36} loss {values['eval_loss']:.6f}  exact {values['eval_exact']:.4f}  "
            f"median {statistics.median(seconds[name]):.2f} s  "
            f"tracing {values.get('eval_jit_compilation_time', 0.0):.2f} s"
        )
    own, ours = (seconds[name] for name in list(runs)[1:])
    ratios = sorted(a / b for a, b in zip(own, ours))
    print(f"Trainer's time over cpuaccel's: {statistics.median(ratios):.2f} ({ratios})")


if __name__ == "__main__":
    main()
