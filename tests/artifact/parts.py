"""Artifacts as bytes, so that tests can change them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import Inputs, batch, encoder, unpadded

SUMS = "SHA256SUMS"

needs_torch_2 = pytest.mark.skipif(
    not hasattr(torch, "device") or not hasattr(torch.Tensor, "untyped_storage"),
    reason="making a Transformers model from its configuration needs torch 2.0",
)


@dataclass(frozen=True)
class SavedFiles:
    """The files of an artifact by name."""

    files: dict[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> "SavedFiles":
        return cls({path.name: path.read_bytes() for path in folder.iterdir()})

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder

    def signed(self) -> "SavedFiles":
        """Recompute the checksums, as an attacker who changes a file would."""
        sums = "".join(
            f"{hashlib.sha256(data).hexdigest()}  {name}\n"
            for name, data in self.files.items()
            if name != SUMS
        )
        return SavedFiles({**self.files, SUMS: sums.encode()})

    def but(self, **changed: bytes) -> "SavedFiles":
        return SavedFiles({**self.files, **changed})


def sign(folder: Path) -> None:
    SavedFiles.read(folder).signed().write(folder)


def edit_json(folder: Path, name: str, **changed: Any) -> None:
    """Change fields of a JSON file (``a__b__0=...`` for ``["a"]["b"][0]``) and its checksum."""
    data = json.loads((folder / name).read_text())
    for path, value in changed.items():
        *parents, last = (int(key) if key.isdigit() else key for key in path.split("__"))
        at = data
        for key in parents:
            at = at[key]
        at[last] = value
    (folder / name).write_text(json.dumps(data))
    sign(folder)


def bert() -> torch.nn.Module:
    return encoder("bert-qa")


def bert_batch(size: int = 2, length: int = 8) -> Inputs:
    return batch("bert-qa", size, length, unpadded)
