"""Folders that this user saved on this machine: only their graphs and engine files are run.

What is known is in the user's cache folder, by the checksum of a folder's ``SHA256SUMS``, which
lists the checksums of all other files. A copy of the folder is known, too.
"""

import hashlib

from cpuaccel.plugin.cache_folder import cache_folder

_KIND = "saved"


def remember_saved(sums: bytes) -> None:
    """Remember the folder with this ``SHA256SUMS``."""
    folder = cache_folder(_KIND)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / _key(sums)).touch()
    except OSError:
        return  # it is built again when it is loaded


def is_saved_here(sums: bytes) -> bool:
    """Whether this user saved the folder with this ``SHA256SUMS``."""
    return (cache_folder(_KIND) / _key(sums)).exists()


def _key(sums: bytes) -> str:
    return hashlib.sha256(sums).hexdigest()
