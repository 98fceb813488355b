"""Files whose checksum was verified before and that were not touched since.

As in Git's index, a file counts as unchanged while its device, inode, size and both times are the
same. The system sets the time of the last change at every write, and no program can set it back.
What is known is in the user's cache folder, not in the saved folder.
"""

import hashlib
import os
import time

from cpuaccel.plugin.cache_folder import cache_folder

LARGE = 2**24
"""Bytes from which files are remembered: smaller ones are hashed in milliseconds."""

SETTLED = 0.1
"""Seconds after which a later write has another time: file systems count in ticks."""


def is_known(status: os.stat_result, checksum: str) -> bool:
    """Whether a file of this status has had this checksum."""
    return status.st_size >= LARGE and (cache_folder("verified") / _key(status, checksum)).exists()


def remember(status: os.stat_result, checksum: str) -> None:
    """Remember the checksum of a file, whose status is as it was before it was hashed."""
    if status.st_size < LARGE or time.time() - status.st_ctime < SETTLED:
        return
    folder = cache_folder("verified")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / _key(status, checksum)).touch()
    except OSError:
        return  # it is hashed again next time


def _key(status: os.stat_result, checksum: str) -> str:
    facts = (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns, checksum),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()
