"""Where the user's caches are."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of cache: in ``$CPUACCEL_CACHE`` or ``$XDG_CACHE_HOME``."""
    chosen = os.environ.get("CPUACCEL_CACHE")
    if chosen:
        return Path(chosen) / kind
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "cpuaccel" / kind
