"""Evaluate an extractive question-answering model, optionally optimized by cpuaccel.

Reads SQuAD or data in one of its formats.
"""

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.arguments import RunArguments
from common.exits import ExampleError
from common.files import write_json
from common.lengths import check_length
from common.models import load_model, load_processor
from common.stages import Outputs, begin, run_stage
from question_answering.answers import Found, find_answers
from question_answering.arguments import QuestionAnsweringArguments
from question_answering.metrics import score
from question_answering.squad import load_questions
from question_answering.windows import ABOUT, cut


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(QuestionAnsweringArguments, __doc__)
    questions = {stage: load_questions(data, model_arguments, stage) for stage in stages}
    tokenizer = load_processor(AutoTokenizer, model_arguments)
    if not tokenizer.is_fast:
        raise ExampleError(
            f"the tokenizer {type(tokenizer).__name__} can't map tokens to the context. Pass a "
            "model with a fast tokenizer"
        )
    # Positions of tokens are counted from the left, so padding has to be on the right.
    tokenizer.padding_side = "right"
    model = load_model(AutoModelForQuestionAnswering, model_arguments)
    check_length(data.max_seq_length, tokenizer, model)
    for stage, (origin, known) in questions.items():
        _run_stage(stage, origin, known, model, tokenizer, data, run)


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
    found: list[Found] = []  # one for each run, the main run last

    def find_and_score(outputs: Outputs) -> Mapping[str, float]:
        found.append(find_answers(questions, windows, outputs[0], outputs[1], data))
        return score(questions, found[-1].best) if known else {}

    def write(_: Outputs) -> None:
        prefix = "" if stage == "eval" else "predict_"
        write_json(output_dir / f"{prefix}predictions.json", found[-1].best)
        write_json(output_dir / f"{prefix}nbest_predictions.json", found[-1].n_best)
        if data.version_2_with_negative:
            write_json(output_dir / f"{prefix}null_odds.json", found[-1].null_odds)

    run_stage(
        stage,
        model,
        inputs,
        collator,
        run,
        score=find_and_score,
        write=write,
        lengths=[len(ids) for ids in inputs["input_ids"]],
        depends_on=data.pad_to_max_length,
        unit="window",
        questions=len(questions),
    )
