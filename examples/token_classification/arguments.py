"""The options that only token classification has."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive


@dataclass
class NerArguments(DataArguments):
    """Which data, and how it is read and scored."""

    max_seq_length: int | None = field(
        default=None,
        metadata={"help": "Tokens to read of a sentence, at most; by default all the model can."},
    )
    label_all_tokens: bool = field(
        default=False,
        metadata={"help": "Score every piece of a word, not the first alone."},
    )

    def __post_init__(self) -> None:
        """Check what argparse can't."""
        require_positive(self, "max_seq_length")
