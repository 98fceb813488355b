"""Evaluate several pipelines on SQuAD, alternating batch by batch.

Each batch goes through the original model in float32 and then through each pipeline, so that a
change of the machine's speed affects all. Prints F1, exact match, the seconds for all batches, the
speedup of the whole run, the median speedup over batches with its quartiles, and the build time.
Batches have windows of similar length, padded to the longest.

    python benchmarks/squad.py MODEL DEV.json jit bettertransformer,jit jit@bfloat16

Needs the packages of the examples: pip install ".[examples]"
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
    """A model and its outputs.

    Attributes:
        model: called with a batch.
        logits: logits of starts and of ends, float32[windows, tokens] each.
        seconds: duration of each batch.
        built: build time in seconds.
    """

    def __init__(self, model: torch.nn.Module, shape: tuple[int, int]) -> None:
        self.model = model
        self.logits = (np.full(shape, -np.inf, np.float32), np.full(shape, -np.inf, np.float32))
        self.seconds: list[float] = []
        self.built = 0.0

    def predict(self, windows: np.ndarray, batch: dict[str, torch.Tensor]) -> None:
        """Call the model and store its logits."""
        begun = time.perf_counter()
        output = self.model(**batch)
        self.seconds.append(time.perf_counter() - begun)
        for stored, logits in zip(self.logits, (output.start_logits, output.end_logits)):
            stored[windows, : logits.shape[1]] = logits.float().numpy()


def batches(
    inputs: Dataset, tokenizer: PreTrainedTokenizerBase, size: int
) -> list[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Make batches of windows of similar length, the longest first."""
    order = np.argsort([-len(ids) for ids in inputs["input_ids"]], kind="stable")
    collate = DataCollatorWithPadding(tokenizer)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return [(group, dict(collate([inputs[int(row)] for row in group]))) for group in groups]


def main() -> None:
    """Evaluate all pipelines and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file", help="data in a format of run_qa.py, such as SQuAD's JSON")
    parser.add_argument("pipelines", nargs="+", help="backends[@dtype]")
    parser.add_argument("--questions", type=int, help="only the first questions, this many")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    data = QuestionAnsweringArguments(
        validation_file=options.file, max_eval_samples=options.questions
    )
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model).float().eval()
    questions, _ = load_questions(data, ModelArguments(options.model), "eval")
    windows = cut(questions, tokenizer, data)
    prepared = batches(windows.remove_columns(list(ABOUT)), tokenizer, options.batch_size)
    shape = (len(windows), data.max_seq_length)
    runs = {EAGER: Run(model, shape)}
    for pipeline in options.pipelines:
        backends, _, dtype = pipeline.partition("@")
        fast = cpuaccel.optimize(
            model,
            backends.split(","),
            dtype=dtype or None,
            example_inputs=prepared[0][1],
            strict=True,
        )
        runs[pipeline] = Run(fast, shape)
        runs[pipeline].built = fast.report.variants[0].seconds
        print(fast.report, "\n")
    with torch.no_grad():
        for run in runs.values():
            run.model(**prepared[0][1])
        for rows, batch in tqdm(prepared, unit="batch"):
            for run in runs.values():
                run.predict(rows, batch)
    print(f"{len(questions)} questions, {len(windows)} windows, {len(prepared)} batches")
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
