"""Whole evaluations on SQuAD through several pipelines, batch by batch in turn.

Every batch goes through the model as it was loaded, in float32, and through each pipeline, one
after the other, so that a drift of the machine meets all alike. Told are F1 and exact match, the
seconds that all batches took, the ratio of the whole, and the median of the batches' ratios with
its quartiles. Building is told apart. Batches hold windows of like length, padded to the longest.

    python benchmarks/squad.py MODEL DEV.json jit bettertransformer,jit jit@bfloat16

Needs what the examples need: pip install ".[examples]"
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

import cpuaccel
from cpuaccel.timing import Ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from common.arguments import ModelArguments
from question_answering.answers import find_answers
from question_answering.arguments import QuestionAnsweringArguments
from question_answering.metrics import score
from question_answering.squad import load_questions
from question_answering.windows import ABOUT, cut

EAGER = "eager"


class Run:
    """A model and what it answered.

    Attributes:
        model: called with a batch.
        logits: of starts and of ends, for each window.
        seconds: what each batch took.
        built: seconds that building took.
    """

    def __init__(self, model: torch.nn.Module, shape: tuple[int, int]) -> None:
        self.model = model
        self.logits = (np.full(shape, -np.inf, np.float32), np.full(shape, -np.inf, np.float32))
        self.seconds: list[float] = []
        self.built = 0.0

    def answer(self, windows: np.ndarray, batch: dict[str, torch.Tensor]) -> None:
        """Call the model, and keep what it says of each token."""
        begun = time.perf_counter()
        output = self.model(**batch)
        self.seconds.append(time.perf_counter() - begun)
        for kept, logits in zip(self.logits, (output.start_logits, output.end_logits)):
            kept[windows, : logits.shape[1]] = logits.float().numpy()


def batches(
    inputs: Dataset, tokenizer: PreTrainedTokenizerBase, size: int
) -> list[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Windows of like length together, the longest first."""
    order = np.argsort([-len(ids) for ids in inputs["input_ids"]], kind="stable")
    collate = DataCollatorWithPadding(tokenizer)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return [(group, dict(collate([inputs[int(row)] for row in group]))) for group in groups]


def main() -> None:
    """Evaluate with each in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file", help="SQuAD's own JSON, or what run_qa.py takes")
    parser.add_argument("pipelines", nargs="+", help="backends[@dtype]")
    parser.add_argument("--questions", type=int, help="only the first so many")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    data = QuestionAnsweringArguments(
        validation_file=options.file, max_eval_samples=options.questions
    )
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model).float().eval()
    questions, _ = load_questions(data, ModelArguments(options.model), "eval")
    windows = cut(questions, tokenizer, data)
    dealt = batches(windows.remove_columns(list(ABOUT)), tokenizer, options.batch_size)
    shape = (len(windows), data.max_seq_length)
    runs = {EAGER: Run(model, shape)}
    for pipeline in options.pipelines:
        backends, _, dtype = pipeline.partition("@")
        fast = cpuaccel.optimize(
            model, backends.split(","), dtype=dtype or None, example_inputs=dealt[0][1], strict=True
        )
        runs[pipeline] = Run(fast, shape)
        runs[pipeline].built = fast.report.variants[0].seconds
        print(fast.report, "\n")
    with torch.no_grad():
        for run in runs.values():
            run.model(**dealt[0][1])
        for rows, batch in tqdm(dealt, unit="batch"):
            for run in runs.values():
                run.answer(rows, batch)
    print(f"{len(questions)} questions, {len(windows)} windows, {len(dealt)} batches")
    print(f"{'pipeline':34} {'F1':>7} {'EM':>7} {'seconds':>8} {'whole':>6}  pairs{'':17} built")
    for name, run in runs.items():
        found = find_answers(questions, windows, *run.logits, data)
        metrics = score(questions, found.best)
        whole = sum(runs[EAGER].seconds) / sum(run.seconds)
        print(
            f"{name:34} {metrics['f1']:7.3f} {metrics['exact_match']:7.3f} "
            f"{sum(run.seconds):8.1f} {whole:5.2f}x  "
            f"{Ratio.from_times(runs[EAGER].seconds, run.seconds)!s:22} {run.built:4.1f} s"
        )


if __name__ == "__main__":
    main()
