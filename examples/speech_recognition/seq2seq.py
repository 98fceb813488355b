"""Evaluate an encoder-decoder for speech such as Whisper, optionally optimized by cpuaccel.

Reads CSV, TSV, JSON or JSON lines with the columns audio (or path), which names a sound file, and
text. With --dataloader_num_workers, worker processes prepare the sound.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    PreTrainedModel,
)

from common.arguments import GeneratingRunArguments, RunArguments
from common.fingerprint import of_files
from common.generation import Generation
from common.models import load_model, load_processor
from common.stages import Outputs, begin, run_stage
from speech_recognition.arguments import Seq2SeqSpeechArguments
from speech_recognition.recordings import load_recordings, read_recording, samples
from speech_recognition.texts import word_error_rates, write_texts
from speech_recognition.whisper import check_options, window


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(
        Seq2SeqSpeechArguments, __doc__, run_type=GeneratingRunArguments
    )
    # The extractor makes the inputs from a batch; they are not columns of the data.
    run.remove_unused_columns = False
    loaded = {stage: load_recordings(data, model_arguments, stage) for stage in stages}
    extractor = load_processor(AutoFeatureExtractor, model_arguments)
    tokenizer = load_processor(AutoTokenizer, model_arguments)
    model = load_model(AutoModelForSpeechSeq2Seq, model_arguments)
    check_options(model, data)
    generation = Generation.of(model, tokenizer, language=data.language, task=data.task)
    for stage, recordings in loaded.items():
        _run_stage(stage, recordings, model, extractor, generation, data, run)


def _run_stage(
    stage: str,
    recordings: Dataset,
    model: PreTrainedModel,
    extractor: Any,
    generation: Generation,
    data: Seq2SeqSpeechArguments,
    run: RunArguments,
) -> None:
    inputs = recordings.select_columns("audio")
    lengths = [samples(source, extractor.sampling_rate) for source in inputs["audio"]]
    longest = window(model, extractor)
    # For all recordings, so that a text does not depend on what else is in the batch.
    if data.return_timestamps or (longest is not None and max(lengths) > longest):
        generation = generation.adding(return_timestamps=True)

    def score(outputs: Outputs) -> dict[str, float]:
        return word_error_rates(generation.texts(outputs[0]), recordings["text"])

    def write(outputs: Outputs) -> None:
        write_texts(Path(run.output_dir), inputs["audio"], generation.texts(outputs[0]))

    run_stage(
        stage,
        model,
        inputs,
        functools.partial(_collate, extractor=extractor, longest=longest),
        run,
        score=score if stage == "eval" else None,
        write=write if stage == "predict" else None,
        lengths=lengths,
        generation=generation,
        depends_on=[
            extractor.to_json_string(),
            of_files(source["path"] for source in inputs["audio"]),
        ],
        unit="recording",
        audio_seconds=sum(lengths) / extractor.sampling_rate,
    )


def _collate(
    rows: list[dict[str, Any]], extractor: Any, longest: int | None
) -> dict[str, torch.Tensor]:
    """Make a batch; Whisper's recordings are padded to its window, or to the longest beyond it."""
    sounds = [read_recording(row["audio"]) for row in rows]
    fits = longest is not None and max(map(len, sounds)) <= longest
    batch = extractor(
        sounds,
        sampling_rate=extractor.sampling_rate,
        padding="max_length" if fits else "longest",
        truncation=fits,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return dict(batch)
