"""Evaluate a text-classification or regression model, optionally optimized by cpuaccel.

Reads one of GLUE's tasks, or CSV, TSV, JSON or JSON lines with the columns sentence1, sentence2
for pairs, and label; with --task_name, the columns of the task.
"""

from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.arguments import RunArguments
from common.data import tokenize_rows
from common.exits import ExampleError
from common.files import write_tsv
from common.labels import Labels
from common.lengths import check_length
from common.models import load_model, load_processor
from common.stages import Outputs, Score, Write, begin, run_stage
from text_classification.arguments import GlueArguments
from text_classification.metrics import Array, score
from text_classification.sentences import Sentences, load_sentences
from text_classification.tasks import REGRESSION, Task


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(GlueArguments, __doc__)
    loaded = [load_sentences(data, model_arguments, stage) for stage in stages]
    tokenizer = load_processor(AutoTokenizer, model_arguments)
    model = load_model(AutoModelForSequenceClassification, model_arguments)
    check_length(data.max_seq_length, tokenizer, model)
    for sentences in (each for splits in loaded for each in splits):
        _run_stage(sentences, model, tokenizer, data, run)


def _run_stage(
    sentences: Sentences,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: GlueArguments,
    run: RunArguments,
) -> None:
    labels = Labels(model.config, sentences.rows, "label")
    inputs = _tokenized(sentences, tokenizer, data)
    evaluated = sentences.stage == "eval"
    run_stage(
        f"{sentences.stage}{sentences.suffix}",
        model,
        inputs,
        DataCollatorWithPadding(tokenizer),
        run,
        score=_scorer(sentences, labels, data) if evaluated else None,
        write=None if evaluated else _writer(sentences, labels, Path(run.output_dir)),
        lengths=[len(ids) for ids in inputs["input_ids"]],
    )


def _tokenized(
    sentences: Sentences, tokenizer: PreTrainedTokenizerBase, data: GlueArguments
) -> Dataset:
    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = [batch[column] for column in sentences.columns]
        return dict(tokenizer(*texts, truncation=True, max_length=data.max_seq_length))

    return tokenize_rows(sentences.rows, tokenize, data.preprocessing_num_workers)


def _scorer(sentences: Sentences, labels: Labels, data: GlueArguments) -> Score:
    classes = len(labels.names)
    task = data.task or Task(metrics=REGRESSION if classes == 1 else ("accuracy",))
    if (task.metrics == REGRESSION) != (classes == 1):
        raise ExampleError(
            f"--task_name {data.task_name} does not fit the model, which has {classes} "
            f"class{'es' if classes > 1 else ', as for a regression'}. Pass a model that was "
            "trained for this task"
        )
    if classes == 1:
        known = np.array(_regression_labels(sentences), dtype=np.float32)
    else:
        known = np.array(labels.numbers(sentences.rows["label"], sentences.origin))
    # In GLUE the positive class is the second; a model may have another order.
    of_model = None if task.positive is None else labels.number(task.positive)
    positive = 1 if of_model is None else of_model
    return lambda outputs: score(task.metrics, _found(outputs), known, classes, positive)


def _writer(sentences: Sentences, labels: Labels, output_dir: Path) -> Write:
    def write(outputs: Outputs) -> None:
        found = _found(outputs).tolist()
        regression = len(labels.names) == 1
        write_tsv(
            output_dir / f"predictions{sentences.suffix}.tsv",
            {
                "index": range(len(found)),
                "prediction": found if regression else [labels.names[number] for number in found],
            },
        )

    return write


def _found(outputs: Outputs) -> Array:
    """Return the class of each row, or its value in a regression."""
    logits = outputs[0]
    return logits[:, 0].astype(np.float32) if logits.shape[1] == 1 else logits.argmax(axis=1)


def _regression_labels(sentences: Sentences) -> list[float]:
    numbers = []
    for row, label in enumerate(sentences.rows["label"], 1):
        try:
            numbers.append(float(label))
        except (TypeError, ValueError) as error:
            raise ExampleError(
                f"{sentences.origin}: the label {label} of row {row} is not a number, but the "
                "model is a regression. Correct the label, or pass a classifier"
            ) from error
    return numbers
