"""The options of speech recognition."""

from dataclasses import dataclass, field

from common.arguments import DataArguments


@dataclass
class SpeechArguments(DataArguments):
    """Data."""

    # Not an option here: recordings are prepared in batches.
    preprocessing_num_workers: int | None = field(default=None, init=False)
