"""Evaluate a translation model, optionally optimized by cpuaccel.

Reads CSV, TSV, JSON or JSON lines with a column for each language, or with the column translation,
which has a text for each language.
"""

from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
)

from common.arguments import GeneratingRunArguments, RunArguments
from common.data import tokenize_rows
from common.files import write_tsv
from common.generation import Generation
from common.lengths import longest
from common.models import load_model, load_processor
from common.stages import Outputs, begin, run_stage
from translation.arguments import TranslationArguments
from translation.languages import first_token
from translation.metrics import Score, bleu
from translation.sentences import load_sentences


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(
        TranslationArguments, __doc__, run_type=GeneratingRunArguments
    )
    assert isinstance(run, GeneratingRunArguments)
    assert data.target_lang is not None
    metric = bleu(data.target_lang)
    loaded = {stage: load_sentences(data, model_arguments, stage) for stage in stages}
    tokenizer = load_processor(AutoTokenizer, model_arguments)
    begins = first_token(tokenizer, data)
    model = load_model(AutoModelForSeq2SeqLM, model_arguments)
    generation = Generation.of(
        model,
        tokenizer,
        num_beams=data.num_beams,
        forced_bos_token_id=begins,
        max_length=data.max_target_length if run.generation_max_length is None else None,
    )
    for stage, sentences in loaded.items():
        _run_stage(stage, sentences, model, generation, data, run, metric)


def _run_stage(
    stage: str,
    sentences: Dataset,
    model: PreTrainedModel,
    generation: Generation,
    data: TranslationArguments,
    run: RunArguments,
    metric: Score,
) -> None:
    inputs = _tokenized(sentences, model, generation, data)

    def score(outputs: Outputs) -> dict[str, float]:
        return metric(generation.texts(outputs[0]), list(sentences["target"]))

    def write(outputs: Outputs) -> None:
        write_tsv(
            Path(run.output_dir) / "predictions.tsv",
            {
                "source": list(sentences["source"]),
                "translation": generation.texts(outputs[0]),
            },
        )

    run_stage(
        stage,
        model,
        inputs,
        DataCollatorWithPadding(generation.tokenizer),
        run,
        score=score if stage == "eval" else None,
        write=write if stage == "predict" else None,
        lengths=[len(ids) for ids in inputs["input_ids"]],
        generation=generation,
        unit="sentence",
    )


def _tokenized(
    sentences: Dataset,
    model: PreTrainedModel,
    generation: Generation,
    data: TranslationArguments,
) -> Dataset:
    prefix = data.source_prefix or ""
    most = min(data.max_source_length, longest(generation.tokenizer, model))

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = [prefix + text for text in batch["source"]]
        return dict(generation.tokenizer(texts, truncation=True, max_length=most))

    return tokenize_rows(sentences, tokenize, data.preprocessing_num_workers)
