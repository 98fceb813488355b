"""The options that only speech recognition has."""

from dataclasses import dataclass, field

from common.arguments import DataArguments


@dataclass
class SpeechArguments(DataArguments):
    """Which data."""

    # Not an option here: recordings are prepared batch by batch.
    preprocessing_num_workers: int | None = field(default=None, init=False)
