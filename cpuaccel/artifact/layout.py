"""The files of an artifact, and how large they may be."""

import re
from typing import Final

FORMAT: Final = "cpuaccel artifact"
VERSION: Final = 1

SUMS = "SHA256SUMS"
RECORD = "artifact.json"
PIPELINE = "pipeline.toml"
REPORT = "report.json"
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
EXAMPLES = "examples.safetensors"

REQUIRED = (PIPELINE, REPORT, RECORD, WEIGHTS, EXAMPLES)

MAX_TEXT = 16 * 2**20
"""Bytes of a file that people can read: a configuration with 20,000 labels takes a million."""

_SCRIPT = re.compile(r"model(-\d{1,3})?\.pt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def script_name(number: int) -> str:
    """The name of one of the TorchScript files."""
    return f"model-{number}.pt" if number else "model.pt"


def is_ours(name: str) -> bool:
    """Whether a file of this name is part of an artifact of this version."""
    return name in (*REQUIRED, CONFIG, SUMS) or bool(_SCRIPT.fullmatch(name))


def is_plain(name: str) -> bool:
    """Whether a name can only mean a file in the folder itself."""
    return bool(_NAME.fullmatch(name))
