"""Questions from SQuAD's JSON, from rows, or from a dataset on the hub."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from datasets import Dataset
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from common.arguments import ModelArguments
from common.data import limit, load_rows, require_columns
from common.exits import ExampleError
from common.tables import Row, read_rows
from cpuaccel.errors import describe_invalid
from question_answering.arguments import QuestionAnsweringArguments

COLUMNS = ("id", "question", "context")

Id = Annotated[str, Field(coerce_numbers_to_str=True)]


class Answers(BaseModel):
    """The answers to a question; empty if it has none."""

    text: list[str]
    answer_start: list[int]


class Question(BaseModel):
    """A question, as in rows of ``squad`` on the hub."""

    id: Id
    question: str
    context: str
    answers: Answers | None = None


class SquadAnswer(BaseModel):
    """An answer, as in SQuAD's files."""

    text: str
    answer_start: int


class SquadQuestion(BaseModel):
    """A question, as in SQuAD's files."""

    id: Id
    question: str
    answers: list[SquadAnswer] | None = None


class SquadParagraph(BaseModel):
    """A context and its questions, as in SQuAD's files."""

    context: str
    qas: list[SquadQuestion]


class SquadArticle(BaseModel):
    """An article, as in SQuAD's files."""

    paragraphs: list[SquadParagraph]


def load_questions(
    data: QuestionAnsweringArguments, model: ModelArguments, stage: str
) -> tuple[Dataset, bool]:
    """Load the questions of a stage.

    Returns:
        A dataset with the columns id, question, context and, if they are known, answers (the
        lists text and answer_start); and whether they are known, as always for ``eval``.

    Raises:
        UsageError: the local file does not exist.
        ExampleError: the data can't be read, or lacks a column or a value.
    """
    # SQuAD's test split is not public; without one, --do_predict predicts the validation split.
    splits = None if stage == "eval" else ("test", "validation")
    dataset, origin = load_rows(data, model, stage, read=_read, splits=splits)
    wanted = (*COLUMNS, "answers") if stage == "eval" else COLUMNS
    require_columns(dataset.column_names, wanted, origin)
    dataset = limit(dataset, data, stage)
    twice = [name for name, count in Counter(dataset["id"]).items() if count > 1]
    if twice:
        raise ExampleError(
            f"{origin}: several questions have the id {twice[0]}. Give each question its own id"
        )
    known = "answers" in dataset.column_names
    if known and not data.version_2_with_negative:
        for name, answers in zip(dataset["id"], dataset["answers"]):
            if not answers["text"]:
                raise ExampleError(
                    f"{origin}: the question {name} has no answer. For data such as SQuAD 2, pass "
                    "--version_2_with_negative"
                )
    return dataset, known


def _read(path: Path, option: str) -> list[Row]:
    rows = read_rows(path, option)
    if "paragraphs" in rows[0]:
        articles: list[SquadArticle] = _validated(list[SquadArticle], rows, f"{option} {path}")
        questions = [
            Question(
                id=question.id,
                question=question.question,
                context=paragraph.context,
                answers=None
                if question.answers is None
                else Answers(
                    text=[answer.text for answer in question.answers],
                    answer_start=[answer.answer_start for answer in question.answers],
                ),
            )
            for article in articles
            for paragraph in article.paragraphs
            for question in paragraph.qas
        ]
        if not questions:
            raise ExampleError(f"{option} {path} has no questions")
    else:
        require_columns(rows[0], COLUMNS, f"{option} {path}")
        questions = _validated(list[Question], rows, f"{option} {path}")
    # Metrics need answers to all questions.
    known = all(question.answers is not None for question in questions)
    return [question.model_dump(exclude=None if known else {"answers"}) for question in questions]


def _validated(wanted: Any, rows: list[Row], origin: str) -> Any:
    try:
        return TypeAdapter(wanted).validate_python(rows)
    except ValidationError as error:
        complaint = error.errors()[0]
        row, *location = complaint["loc"]
        assert isinstance(row, int)
        more = error.error_count() - 1
        also = f" ({more} more like it)" if more else ""
        raise ExampleError(
            f"{origin}: row {row + 1} is invalid: {describe_invalid(complaint, location, ())}{also}"
        ) from error
