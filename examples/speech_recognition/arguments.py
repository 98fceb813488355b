"""The options of speech recognition."""

from dataclasses import dataclass, field

from common.arguments import DataArguments


@dataclass
class SpeechArguments(DataArguments):
    """Data."""

    # Not an option here: recordings are prepared in batches.
    preprocessing_num_workers: int | None = field(default=None, init=False)


@dataclass
class Seq2SeqSpeechArguments(SpeechArguments):
    """Data and decoding."""

    language: str | None = field(
        default=None,
        metadata={
            "help": "The language of the recordings, such as german or de. Only for multilingual "
            "Whisper, which otherwise detects it."
        },
    )
    task: str | None = field(
        default=None,
        metadata={"help": "transcribe, or translate into English. Only for multilingual Whisper."},
    )
    return_timestamps: bool = field(
        default=False,
        metadata={
            "help": "Let Whisper predict timestamps, as it always does for data with recordings "
            "of more than 30 seconds."
        },
    )
