"""``SHA256SUMS``: the hash of every file, as ``sha256sum --check`` reads it."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cpuaccel.artifact.layout import SUMS, is_plain
from cpuaccel.errors import ArtifactError

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Hash files of a folder and write the list."""
    lines = []
    for name in names:
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def parse_sums(data: bytes, asked: str) -> Mapping[str, str]:
    """Hashes by name.

    Raises:
        ArtifactError: a line is malformed, twice there, or names what is not in the folder itself.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), start=1):
        found = _LINE.fullmatch(line)
        if found is None or not is_plain(found[2]) or found[2] in sums:
            raise ArtifactError(
                f"{asked}, but line {number} of {SUMS} is {line[:120]!r}. A line is a hash, two "
                "spaces and the name of a file in the same folder, each named once. Save it "
                "anew, or fetch it again from where it came"
            )
        sums[found[2]] = found[1]
    return sums
