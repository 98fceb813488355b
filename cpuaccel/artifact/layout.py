"""Names and size limits of an artifact's files."""

import re
from typing import Final

FORMAT: Final = "cpuaccel artifact"
VERSION: Final = 2
"""Version 1 has no ``generate``."""

SUMS = "SHA256SUMS"
RECORD = "artifact.json"
PIPELINE = "pipeline.toml"
REPORT = "report.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "weights.safetensors"
EXAMPLES = "examples.safetensors"
KEPT = "kept.json"
KEPT_TENSORS = "kept.bin"

REQUIRED = (PIPELINE, REPORT, RECORD, WEIGHTS, EXAMPLES)

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "source.spm",
    "target.spm",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "normalizer.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What Transformers' tokenizers, image processors and feature extractors save. ``load`` reads none
of them; ``from_pretrained`` of a tokenizer does."""

MAX_TEXT = 16 * 2**20
"""Largest text file, in bytes: a configuration with 20,000 labels takes a million."""

_SCRIPT = re.compile(r"model(-\d{1,3})?\.pt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def script_name(number: int) -> str:
    """Name a TorchScript file."""
    return f"model-{number}.pt" if number else "model.pt"


def is_artifact_file(name: str) -> bool:
    """Return whether a file of this name belongs to an artifact of this version."""
    names = (*REQUIRED, CONFIG, GENERATION_CONFIG, KEPT, KEPT_TENSORS, *TOKENIZER, SUMS)
    return name in names or bool(_SCRIPT.fullmatch(name))


def is_plain(name: str) -> bool:
    """Return whether a name can only refer to a file in the folder itself."""
    return bool(_NAME.fullmatch(name))
