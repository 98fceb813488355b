"""The evaluation, from the command line to the results."""

from pathlib import Path

import datasets
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.arguments import ModelArguments, RunArguments, parse
from common.data import check_source
from common.exits import ExampleError
from common.files import make_output_dir, write_json
from common.fingerprint import fingerprint
from common.lengths import check_length
from common.models import load_model, load_processor
from common.partial import PartialResults
from common.prediction import predict
from common.summary import summarize
from question_answering.answers import find_answers
from question_answering.arguments import QuestionAnsweringArguments
from question_answering.metrics import score
from question_answering.squad import load_questions
from question_answering.windows import ABOUT, cut


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``.

    Raises:
        UsageError: the command line can't be right.
        ExampleError: something that it names can't be used.
    """
    arguments: tuple[ModelArguments, QuestionAnsweringArguments, RunArguments] = parse(
        (ModelArguments, QuestionAnsweringArguments, RunArguments),
        "Evaluate an extractive question-answering model on SQuAD or data like it, through a "
        "pipeline of cpuaccel's.",
    )
    model_arguments, data, run = arguments
    stages = [stage for stage in ("eval", "predict") if getattr(run, f"do_{stage}")]
    check_source(data, stages)
    make_output_dir(Path(run.output_dir))
    datasets.disable_progress_bars()
    questions = {stage: load_questions(data, model_arguments, stage) for stage in stages}
    tokenizer = load_processor(AutoTokenizer, model_arguments)
    if not tokenizer.is_fast:
        raise ExampleError(
            f"the tokenizer {type(tokenizer).__name__} was asked for, but it can't tell where in "
            "the context its tokens are. Pass a model with a fast tokenizer"
        )
    # Where a token is has to be known from the left, whatever the model was trained with.
    tokenizer.padding_side = "right"
    model = load_model(AutoModelForQuestionAnswering, model_arguments)
    check_length(data.max_seq_length, tokenizer, model)
    for stage, (asked, known) in questions.items():
        _run_stage(stage, asked, known, model, tokenizer, data, run)


def _run_stage(
    stage: str,
    questions: Dataset,
    known: bool,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: QuestionAnsweringArguments,
    run: RunArguments,
) -> None:
    output_dir = Path(run.output_dir)
    windows = cut(questions, tokenizer, data)
    inputs = windows.remove_columns(list(ABOUT))
    collator = DataCollatorWithPadding(
        tokenizer,
        padding="max_length" if data.pad_to_max_length else True,
        max_length=data.max_seq_length if data.pad_to_max_length else None,
    )
    with PartialResults(
        output_dir / f"{stage}_partial",
        fingerprint(model, inputs, run, padded=data.pad_to_max_length),
        afresh=run.overwrite_output_dir,
    ) as partial:
        predicted = predict(
            model,
            inputs,
            collator,
            run,
            partial,
            lengths=[len(ids) for ids in inputs["input_ids"]],
            unit="window",
        )
        metrics = {}
        for name, predictions in predicted.runs.items():
            starts, ends = predictions.outputs[:2]
            found = find_answers(questions, windows, starts, ends, data)
            metrics[name] = score(questions, found.best) if known else {}
            if name == predicted.main:
                prefix = "" if stage == "eval" else "predict_"
                write_json(output_dir / f"{prefix}predictions.json", found.best)
                write_json(output_dir / f"{prefix}nbest_predictions.json", found.n_best)
                if data.version_2_with_negative:
                    write_json(output_dir / f"{prefix}null_odds.json", found.null_odds)
        summarize(stage, predicted, metrics, output_dir, unit="window", questions=len(questions))
