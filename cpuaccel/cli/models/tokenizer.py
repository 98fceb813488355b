"""The files of the tokenizer or processor of the model that the argument MODEL names."""

from pathlib import Path

from cpuaccel.artifact.layout import TOKENIZER
from cpuaccel.cli.models.load import import_transformers
from cpuaccel.cli.models.source import CONFIG_PREFIX, find_source


def tokenizer_folder(name: str) -> Path | None:
    """Find the folder with the files ``TOKENIZER``, after downloading those of a hub id.

    Returns:
        None if the model has none, such as one of random weights.
    """
    if name.startswith(CONFIG_PREFIX):
        return None
    source = find_source(name)
    if source.folder is not None:
        has_any = any((source.folder / file).is_file() for file in TOKENIZER)
        return source.folder if has_any else None
    cached_file = import_transformers().utils.cached_file
    found = None
    for file in TOKENIZER:
        try:
            found = Path(cached_file(source.path, file)).parent
        except OSError:  # also if the repository has no such file
            continue
    return found
