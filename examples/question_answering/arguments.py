"""The options of question answering."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive
from common.exits import UsageError


@dataclass
class QuestionAnsweringArguments(DataArguments):
    """Data and answers."""

    max_seq_length: int = field(
        default=384, metadata={"help": "Most tokens of a question with a window of its context."}
    )
    doc_stride: int = field(
        default=128, metadata={"help": "Tokens that adjacent windows of a context share."}
    )
    pad_to_max_length: bool = field(
        default=False,
        metadata={
            "help": "Pad all batches to --max_seq_length instead of to their longest row: slower, "
            "for pipelines that need fixed shapes."
        },
    )
    version_2_with_negative: bool = field(
        default=False, metadata={"help": "Some questions have no answer, as in SQuAD 2."}
    )
    null_score_diff_threshold: float = field(
        default=0.0,
        metadata={
            "help": "With --version_2_with_negative: the margin by which the score for no answer "
            "must exceed that of the best answer."
        },
    )
    n_best_size: int = field(
        default=20,
        metadata={"help": "Number of starts, ends and answers to consider and to write."},
    )
    max_answer_length: int = field(default=30, metadata={"help": "Most tokens of an answer."})

    def __post_init__(self) -> None:
        """Check what argparse can't.

        Raises:
            UsageError: a number is invalid.
        """
        require_positive(self, "max_seq_length", "n_best_size", "max_answer_length")
        if not 0 <= self.doc_stride < self.max_seq_length:
            raise UsageError(
                f"--doc_stride must be >= 0 and < --max_seq_length ({self.max_seq_length}), got "
                f"{self.doc_stride}"
            )
