"""run_translation.py with small models and their own tokenizers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")
pytest.importorskip("datasets")
sacrebleu = pytest.importorskip("sacrebleu")
sentencepiece = pytest.importorskip("sentencepiece")

from tests.examples.conftest import Example  # noqa: E402
from tests.examples.data import Rows, read_tsv, texts, write_rows  # noqa: E402
from tests.examples.results import results  # noqa: E402
from tests.required import NATIVE, requires  # noqa: E402

# From Marian's tokenizer, which does without it here.
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses:UserWarning")

SCRIPT = "translation/run_translation.py"
SENTENCES = texts(7)
LANGUAGES = ("--source_lang", "en", "--target_lang", "de")
VOCABULARY = 250
"""More than the pieces and the languages of M2M100."""

BART = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": 256},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
}


class Translator(NamedTuple):
    """A saved model, and its translation of a sentence alone, given arguments of ``generate``."""

    folder: Path
    translates: Callable[..., str]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tokenizer on the sentences."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text").write_text("\n".join([*texts(60), "translate this now: "]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "spm"), vocab_size=100, minloglevel=2
    )
    return folder / "spm.model"


def marian(folder: Path, pieces: Path) -> Translator:
    spm = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    words = ["<unk>", "</s>", *(spm.id_to_piece(n) for n in range(3, spm.vocab_size())), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}))
    tokenizer = transformers.MarianTokenizer(
        str(pieces), str(pieces), str(folder / "vocab.json"), source_lang="en", target_lang="de"
    )
    pad = len(words) - 1
    config = transformers.MarianConfig(
        **BART, vocab_size=len(words), pad_token_id=pad, eos_token_id=1, decoder_start_token_id=pad
    )
    return _saved(folder, transformers.MarianMTModel(config), tokenizer)


def m2m100(folder: Path, pieces: Path) -> Translator:
    spm = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    words = ["<s>", "<pad>", "</s>", "<unk>"]
    words += [spm.id_to_piece(n) for n in range(3, spm.vocab_size())]
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}))
    tokenizer = transformers.M2M100Tokenizer(str(folder / "vocab.json"), str(pieces))
    config = transformers.M2M100Config(
        **BART, vocab_size=VOCABULARY, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2
    )
    model = transformers.M2M100ForConditionalGeneration(config)
    tokenizer.src_lang = "en"
    return _saved(folder, model, tokenizer, forced_bos_token_id=tokenizer.get_lang_id("de"))


def t5(folder: Path, pieces: Path) -> Translator:
    spm = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words += [(spm.id_to_piece(n), spm.get_score(n)) for n in range(3, spm.vocab_size())]
    tokenizer = transformers.T5Tokenizer(vocab=words, extra_ids=0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(**sizes, vocab_size=len(words), decoder_start_token_id=0)
    return _saved(folder, transformers.T5ForConditionalGeneration(config), tokenizer)


def _saved(folder: Path, model: Any, tokenizer: Any, **fixed: object) -> Translator:
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for parameter in model.parameters():  # translations that differ between sentences
            if parameter.dim() > 1 and parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.update(no_repeat_ngram_size=2)
    model.generation_config._from_model_config = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def translates(text: str, **options: object) -> str:
        inputs = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.no_grad():
            tokens = model.generate(**inputs, **{"max_length": 128, **fixed, **options})
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()

    return Translator(folder, translates)


MODELS = {"marian": marian, "m2m100": m2m100, "t5": t5}


@pytest.fixture(scope="module")
def translators(
    pieces: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Translator]:
    made: dict[str, Translator] = {}

    def get(name: str) -> Translator:
        if name not in made:
            made[name] = MODELS[name](tmp_path_factory.mktemp(name), pieces)
        return made[name]

    return get


def known(translations: Sequence[str]) -> list[str]:
    """Labels: the translations, of which every third lacks its last word."""
    return [
        " ".join(text.split()[:-1]) or "x" if row % 3 == 2 else text or "x"
        for row, text in enumerate(translations)
    ]


def rows(targets: Sequence[str]) -> Rows:
    return [{"en": one, "de": other} for one, other in zip(SENTENCES, targets, strict=True)]


WAYS: dict[str, tuple[str, list[object], dict[str, object], str]] = {
    "beams": ("marian", ["--num_beams", 3], {"num_beams": 3}, ""),
    "length": ("marian", ["--max_target_length", 9], {"max_length": 9}, ""),
    "trainer's length": ("marian", ["--generation_max_length", 9], {"max_length": 9}, ""),
    "language": ("m2m100", ["--generation_num_beams", 2], {"num_beams": 2}, ""),
    "first token": ("m2m100", ["--forced_bos_token", "__fr__"], {"french": True}, ""),
    "prefix": ("t5", ["--source_prefix", "translate this: "], {}, "translate this: "),
}


@requires(*NATIVE)
@pytest.mark.parametrize("way", WAYS)
def test_options(
    example: Example, translators: Callable[[str], Translator], tmp_path: Path, way: str
) -> None:
    name, options, call, prefix = WAYS[way]
    translator = translators(name)
    if call.get("french"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(translator.folder)
        call = {"forced_bos_token_id": tokenizer.get_lang_id("fr")}
    expected = [translator.translates(prefix + sentence, **call) for sentence in SENTENCES]
    assert len(set(expected)) > 3
    data = write_rows(tmp_path / "list.jsonl", rows(known(expected)))
    done = example(
        SCRIPT,
        *("--model_name_or_path", translator.folder, "--output_dir", tmp_path / "out", *LANGUAGES),
        *("--do_eval", "--validation_file", data, "--do_predict", "--test_file", data),
        *("--per_device_eval_batch_size", 3, *options),
    )
    assert done.code == 0, done.err
    assert read_tsv(tmp_path / "out" / "predictions.tsv") == {
        "source": SENTENCES,
        "translation": expected,
    }
    score = sacrebleu.corpus_bleu(expected, [known(expected)]).score
    assert 10 < score < 100
    assert results(tmp_path / "out")["bleu"] == pytest.approx(score, abs=1e-6)


@requires(*NATIVE)
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_pipeline_scores_as_eager(
    example: Example, translators: Callable[[str], Translator], tmp_path: Path, suffix: str
) -> None:
    translator = translators("marian")
    # Short: in long texts of random weights two beams have the same score.
    short = {"num_beams": 2, "max_length": 16}
    expected = [translator.translates(sentence, **short) for sentence in SENTENCES]
    listed = rows(known(expected))
    nested = [{"id": number, "translation": row} for number, row in enumerate(listed)]
    data = write_rows(tmp_path / f"list.{suffix}", listed if suffix == "csv" else nested)
    done = example(
        SCRIPT,
        *("--model_name_or_path", translator.folder, "--output_dir", tmp_path / "out", *LANGUAGES),
        *("--do_eval", "--validation_file", data, "--num_beams", 2, "--max_target_length", 16),
        *("--per_device_eval_batch_size", 3),
        *("--cpuaccel_backends", "onednn", "--compare_with_eager"),
    )
    assert done.code == 0, done.err
    found = results(tmp_path / "out")
    score = sacrebleu.corpus_bleu(expected, [known(expected)]).score
    assert found["bleu"] == found["eager_bleu"] == pytest.approx(score, abs=1e-6)
    assert found["cpuaccel_onednn_applied"] == 1
    assert found["cpuaccel_calls_optimized"] == 3
    assert found["cpuaccel_calls_original"] == 0


@pytest.mark.parametrize(
    ("name", "options", "content", "message", "code"),
    [
        ("marian", ["--target_lang", "de"], "en,de\na,b\n", "--source_lang is required.", 2),
        ("marian", LANGUAGES, "en,fr\na,b\n", "list.csv has no column de. Available: en, fr", 1),
        ("marian", [*LANGUAGES, "--num_beams", 0], "en,de\na,b\n", "--num_beams must be >= 1", 2),
        (
            "marian",
            [*LANGUAGES, "--forced_bos_token", "__de__"],
            "en,de\na,b\n",
            "unknown --forced_bos_token __de__: the tokenizer has no such token",
            2,
        ),
        (
            "m2m100",
            ["--source_lang", "en", "--target_lang", "xy"],
            "en,xy\na,b\n",
            "unknown --target_lang xy.",
            2,
        ),
        (
            "marian",
            ["--source_lang", "en", "--target_lang", "ja"],
            "en,ja\na,b\n",
            "BLEU for --target_lang ja: ",
            1,
        ),
    ],
)
def test_errors(
    example: Example,
    translators: Callable[[str], Translator],
    tmp_path: Path,
    name: str,
    options: Sequence[object],
    content: str,
    message: str,
    code: int,
) -> None:
    data = tmp_path / "list.csv"
    data.write_text(content)
    done = example(
        SCRIPT,
        *("--model_name_or_path", translators(name).folder, "--output_dir", tmp_path / "out"),
        *("--do_eval", "--validation_file", data, *options),
    )
    done.assert_error(message, code=code)
