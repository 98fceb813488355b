"""What only Whisper has: languages, tasks, and a window that each recording is padded to."""

from typing import Any

from transformers import PreTrainedModel
from transformers.models.whisper.tokenization_whisper import TASK_IDS, TO_LANGUAGE_CODE

from common.exits import UsageError
from cpuaccel.errors import did_you_mean
from speech_recognition.arguments import Seq2SeqSpeechArguments


def window(model: PreTrainedModel, extractor: Any) -> int | None:
    """Return the number of samples that Whisper reads at once; None for other models."""
    return int(extractor.n_samples) if model.config.model_type == "whisper" else None


def check_options(model: PreTrainedModel, data: Seq2SeqSpeechArguments) -> None:
    """Check that a model has the language and the task that are asked for.

    Raises:
        UsageError: it has not.
    """
    of_whisper = model.config.model_type == "whisper"
    if data.return_timestamps and not of_whisper:
        raise UsageError(
            f"--return_timestamps is for Whisper, got a {type(model).__name__}. Leave it out"
        )
    settings: Any = model.generation_config
    for option in ("language", "task"):
        value = getattr(data, option)
        if value is not None and not getattr(settings, "is_multilingual", False):
            raise UsageError(
                f"--{option} {value}: the model is not a multilingual Whisper. Leave it out"
            )
    if data.task is not None and data.task not in TASK_IDS:
        raise UsageError(
            f"unknown --task {data.task}{did_you_mean(data.task, TASK_IDS)} "
            f"Available: {', '.join(TASK_IDS)}"
        )
    if data.language is not None:
        language = data.language.lower()
        code = TO_LANGUAGE_CODE.get(language, language)
        known = [token.strip("<|>") for token in settings.lang_to_id]
        if code not in known:
            raise UsageError(
                f"unknown --language {data.language}{did_you_mean(language, TO_LANGUAGE_CODE)} "
                f"The model has {', '.join(known)}"
            )
