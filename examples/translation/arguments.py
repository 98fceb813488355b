"""The options of translation."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive
from common.exits import UsageError


@dataclass
class TranslationArguments(DataArguments):
    """Data and decoding."""

    source_lang: str | None = field(
        default=None, metadata={"help": "The language to translate from, such as en (required)."}
    )
    target_lang: str | None = field(
        default=None, metadata={"help": "The language to translate into, such as de (required)."}
    )
    source_prefix: str | None = field(
        default=None,
        metadata={
            "help": "Text before each sentence, such as 'translate English to German: ' for T5."
        },
    )
    forced_bos_token: str | None = field(
        default=None,
        metadata={
            "help": "The first token of each translation. By default that of the target language, "
            "if the tokenizer has one."
        },
    )
    max_source_length: int = field(
        default=1024, metadata={"help": "Most tokens of a sentence; the rest is cut off."}
    )
    max_target_length: int = field(default=128, metadata={"help": "Most tokens of a translation."})
    num_beams: int | None = field(
        default=None,
        metadata={
            "help": "Beams of the search. By default --generation_num_beams, or the model's."
        },
    )

    def __post_init__(self) -> None:
        """Check what argparse can't.

        Raises:
            UsageError: a language is missing, or a number is invalid.
        """
        require_positive(self, "max_source_length", "max_target_length", "num_beams")
        for option in ("source_lang", "target_lang"):
            if not getattr(self, option):
                raise UsageError(f"--{option} is required. Pass a language, such as en")
