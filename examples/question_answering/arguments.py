"""The options that only question answering has."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive
from common.exits import UsageError


@dataclass
class QuestionAnsweringArguments(DataArguments):
    """Which data, and how answers are found in it."""

    max_seq_length: int = field(
        default=384, metadata={"help": "Tokens of a question and a window of its context."}
    )
    doc_stride: int = field(
        default=128, metadata={"help": "Tokens that neighbouring windows of a context share."}
    )
    pad_to_max_length: bool = field(
        default=False,
        metadata={
            "help": "Pad each batch to --max_seq_length instead of to its longest: slower, and of "
            "use only where shapes must not vary."
        },
    )
    version_2_with_negative: bool = field(
        default=False, metadata={"help": "Some questions have no answer, as in SQuAD 2."}
    )
    null_score_diff_threshold: float = field(
        default=0.0,
        metadata={
            "help": "With --version_2_with_negative: no answer is given where its score exceeds "
            "the best answer's by more than this."
        },
    )
    n_best_size: int = field(
        default=20, metadata={"help": "Starts, ends and answers to consider and to write."}
    )
    max_answer_length: int = field(default=30, metadata={"help": "An answer's most tokens."})

    def __post_init__(self) -> None:
        """Check what argparse can't.

        Raises:
            UsageError: a number that can't be right.
        """
        require_positive(self, "max_seq_length", "n_best_size", "max_answer_length")
        if not 0 <= self.doc_stride < self.max_seq_length:
            raise UsageError(
                f"--doc_stride {self.doc_stride} was asked for with --max_seq_length "
                f"{self.max_seq_length}. Pass a stride from 0 up that is smaller than the length"
            )
