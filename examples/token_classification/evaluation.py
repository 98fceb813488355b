"""Evaluate a token-classification model, optionally optimized by cpuaccel.

Reads CSV, TSV, JSON or JSON lines with the columns tokens and ner_tags, a list each; reads all
other files as CoNLL columns.
"""

from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.arguments import ModelArguments, RunArguments
from common.exits import ExampleError
from common.files import write_text
from common.labels import Labels
from common.lengths import check_length, longest
from common.models import load_model, load_processor
from common.prediction import Array
from common.stages import Outputs, Score, Write, begin, run_stage
from token_classification.arguments import NerArguments
from token_classification.conll import to_conll
from token_classification.metrics import OUTSIDE, Tags, check_tags, inside, score
from token_classification.pieces import WORDS, cut, positions
from token_classification.sentences import load_sentences

Pieces = list[list[list[int]]]
"""The positions of the pieces of each word in each sentence."""


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(NerArguments, __doc__)
    loaded = {stage: load_sentences(data, model_arguments, stage) for stage in stages}
    tokenizer = _load_tokenizer(model_arguments)
    model = load_model(AutoModelForTokenClassification, model_arguments)
    if data.max_seq_length is not None:
        check_length(data.max_seq_length, tokenizer, model)
    for stage, (sentences, origin) in loaded.items():
        _run_stage(stage, sentences, origin, model, tokenizer, data, run)


def _load_tokenizer(arguments: ModelArguments) -> PreTrainedTokenizerBase:
    tokenizer = load_processor(AutoTokenizer, arguments)
    if getattr(tokenizer, "add_prefix_space", None) is False:
        # Tokenizers that keep blanks as parts of words, such as RoBERTa's, need it for split words.
        tokenizer = load_processor(AutoTokenizer, arguments, add_prefix_space=True)
    if not tokenizer.is_fast:
        raise ExampleError(
            f"the tokenizer {type(tokenizer).__name__} can't map tokens to words. Pass a model "
            "with a fast tokenizer"
        )
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _run_stage(
    stage: str,
    sentences: Dataset,
    origin: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: NerArguments,
    run: RunArguments,
) -> None:
    labels = Labels(model.config, sentences, "ner_tags")
    evaluated = stage == "eval"
    if evaluated:
        check_tags(labels.names, f"--model_name_or_path {model.name_or_path}")
    length = data.max_seq_length or longest(tokenizer, model)
    pieces_of_words = cut(sentences, tokenizer, length, data.preprocessing_num_workers)
    pieces: Pieces = [
        positions(words, len(tokens))
        for words, tokens in zip(pieces_of_words[WORDS], sentences["tokens"])
    ]
    inputs = pieces_of_words.remove_columns(WORDS)
    run_stage(
        stage,
        model,
        inputs,
        DataCollatorWithPadding(tokenizer),
        run,
        score=_scorer(sentences, origin, labels, pieces, data.label_all_tokens)
        if evaluated
        else None,
        write=None if evaluated else _writer(sentences, labels, pieces, Path(run.output_dir)),
        lengths=[len(ids) for ids in inputs["input_ids"]],
        unit="sentence",
        words=sum(map(len, pieces)),
        words_unread=sum(not places for sentence in pieces for places in sentence),
    )


def _scorer(
    sentences: Dataset, origin: str, labels: Labels, pieces: Pieces, label_all_tokens: bool
) -> Score:
    counted = slice(None) if label_all_tokens else slice(1)
    known: Tags = []
    for row, (tags, words) in enumerate(zip(sentences["ner_tags"], pieces), 1):
        known.append([])
        for tag, places in zip(tags, words):
            number = labels.number(tag)
            if number is None:
                raise labels.unknown(tag, row, origin)
            others = places[counted][1:]
            known[-1] += [labels.names[number], *(inside(labels.names[number]) for _ in others)]
    return lambda outputs: score(_found(outputs, labels, pieces, counted), known)


def _writer(sentences: Dataset, labels: Labels, pieces: Pieces, output_dir: Path) -> Write:
    def write(outputs: Outputs) -> None:
        found = _found(outputs, labels, pieces, slice(1))
        write_text(output_dir / "predictions.conll", to_conll(list(sentences["tokens"]), found))

    return write


def _found(outputs: Outputs, labels: Labels, pieces: Pieces, counted: slice) -> Tags:
    """Return the tags of the words of each sentence, or of their pieces; O if cut off."""
    return [
        [tag for places in words for tag in _tags(labels, classes, places[counted])]
        for classes, words in zip(outputs[0].argmax(axis=2), pieces)
    ]


def _tags(labels: Labels, classes: Array, places: list[int]) -> list[str]:
    return [labels.names[classes[place]] for place in places] or [OUTSIDE]
