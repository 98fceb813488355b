"""Windows of contexts that are longer than the model's limit."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.data import tokenize_rows
from common.exits import ExampleError
from question_answering.arguments import QuestionAnsweringArguments

ABOUT = ("question", "offsets", "context_first", "context_last")
"""Columns that are not inputs of the model.

The row of the question; the (first, one past the last) character of each token in the context; the
first and last token of the context.
"""


def cut(
    questions: Dataset, tokenizer: PreTrainedTokenizerBase, data: QuestionAnsweringArguments
) -> Dataset:
    """Tokenize questions with their contexts, in overlapping windows.

    Args:
        questions: rows with the columns question and context.
        tokenizer: a fast tokenizer.
        data: length and overlap of the windows.

    Returns:
        The model's inputs, unpadded, and the columns ``ABOUT``.

    Raises:
        ExampleError: a question leaves no room for its context.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)

    def tokenize(batch: dict[str, list[str]], rows: list[int]) -> dict[str, list[Any]]:
        # With leading blanks, some tokenizers cut the question instead of the context.
        stripped = [question.strip() for question in batch["question"]]
        for question, tokens in zip(
            stripped, tokenizer(stripped, add_special_tokens=False)["input_ids"]
        ):
            if len(tokens) + special + data.doc_stride >= data.max_seq_length:
                raise ExampleError(
                    f"--max_seq_length {data.max_seq_length} and --doc_stride {data.doc_stride} "
                    f"leave no room for a context: the question {question[:60]!r} has "
                    f"{len(tokens)} tokens. Pass a greater length or a smaller stride"
                )
        encoded = tokenizer(
            stripped,
            batch["context"],
            truncation="only_second",
            max_length=data.max_seq_length,
            stride=data.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        parts = [encoded.sequence_ids(window) for window in range(len(encoded["input_ids"]))]
        return {
            **{name: encoded[name] for name in tokenizer.model_input_names if name in encoded},
            "question": [rows[sample] for sample in encoded["overflow_to_sample_mapping"]],
            "offsets": encoded["offset_mapping"],
            # One past the end if a window has no part of the context.
            "context_first": [part.index(1) if 1 in part else len(part) for part in parts],
            "context_last": [
                len(part) - 1 - part[::-1].index(1) if 1 in part else -1 for part in parts
            ],
        }

    return tokenize_rows(questions, tokenize, data.preprocessing_num_workers, with_indices=True)
