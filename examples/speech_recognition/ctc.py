"""Evaluate a CTC speech-recognition model such as Wav2Vec2, optionally optimized by cpuaccel.

Reads CSV, TSV, JSON or JSON lines with the columns audio (or path), which names a sound file, and
text. With --dataloader_num_workers, worker processes prepare the sound.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.arguments import RunArguments
from common.exits import ExampleError
from common.fingerprint import of_files
from common.models import load_model, load_processor
from common.stages import Outputs, begin, run_stage
from speech_recognition.arguments import SpeechArguments
from speech_recognition.recordings import load_recordings, name_of, read_recording, samples
from speech_recognition.texts import word_error_rates, write_texts

UNNEEDED = ("masked_spec_embed",)
"""Weights that only training uses, and that published checkpoints lack."""


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(SpeechArguments, __doc__)
    # The extractor makes the inputs from a batch; they are not columns of the data.
    run.remove_unused_columns = False
    loaded = {stage: load_recordings(data, model_arguments, stage) for stage in stages}
    extractor = load_processor(AutoFeatureExtractor, model_arguments)
    tokenizer = load_processor(AutoTokenizer, model_arguments)
    model = load_model(AutoModelForCTC, model_arguments, UNNEEDED)
    frames_of = getattr(model, "_get_feat_extract_output_lengths", None)
    if frames_of is None:
        raise ExampleError(
            f"--model_name_or_path {model_arguments.model_name_or_path}: a {type(model).__name__} "
            "does not take raw sound. Pass a model such as Wav2Vec2"
        )
    for stage, recordings in loaded.items():
        _run_stage(stage, recordings, model, frames_of, extractor, tokenizer, run)


def _run_stage(
    stage: str,
    recordings: Dataset,
    model: PreTrainedModel,
    frames_of: Callable[[torch.Tensor], torch.Tensor],
    extractor: Any,
    tokenizer: PreTrainedTokenizerBase,
    run: RunArguments,
) -> None:
    inputs = recordings.select_columns("audio")
    lengths = [samples(source, extractor.sampling_rate) for source in inputs["audio"]]
    frames = frames_of(torch.tensor(lengths)).tolist()
    for source, count in zip(inputs["audio"], frames):
        if count < 1:
            raise ExampleError(
                f"the recording {name_of(source)} is too short for the model. Remove it"
            )

    def score(outputs: Outputs) -> dict[str, float]:
        return word_error_rates(_decode(outputs, frames, tokenizer), recordings["text"])

    def write(outputs: Outputs) -> None:
        write_texts(Path(run.output_dir), inputs["audio"], _decode(outputs, frames, tokenizer))

    run_stage(
        stage,
        model,
        inputs,
        functools.partial(_collate, extractor=extractor),
        run,
        score=score if stage == "eval" else None,
        write=write if stage == "predict" else None,
        lengths=lengths,
        reduce=_best_tokens,
        depends_on=[
            extractor.to_json_string(),
            of_files(source["path"] for source in inputs["audio"]),
        ],
        unit="recording",
        audio_seconds=sum(lengths) / extractor.sampling_rate,
    )


def _collate(rows: list[dict[str, Any]], extractor: Any) -> dict[str, torch.Tensor]:
    sounds = [read_recording(row["audio"]) for row in rows]
    batch = extractor(
        sounds, sampling_rate=extractor.sampling_rate, padding=True, return_tensors="pt"
    )
    return dict(batch)


def _best_tokens(logits: Any, _: object) -> torch.Tensor:
    # The logits of hours of speech take gigabytes.
    best = logits[0] if isinstance(logits, tuple) else logits
    tokens: torch.Tensor = best.argmax(dim=-1)
    return tokens


def _decode(
    outputs: Outputs, frames: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Decode the frames of each recording, without those of padding."""
    return [str(tokenizer.decode(tokens[:count])) for tokens, count in zip(outputs[0], frames)]
