"""The options of token classification."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive


@dataclass
class NerArguments(DataArguments):
    """Data and metrics."""

    max_seq_length: int | None = field(
        default=None,
        metadata={"help": "Most tokens of a sentence; the limit of the model by default."},
    )
    label_all_tokens: bool = field(
        default=False,
        metadata={"help": "Score every piece of a word, not only the first."},
    )

    def __post_init__(self) -> None:
        """Check what argparse can't."""
        require_positive(self, "max_seq_length")
