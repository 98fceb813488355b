"""Large files are hashed once, and again as soon as anything may have changed them."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from cpuaccel.artifact.mapping.known_files import LARGE, SETTLED, is_known, remember


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CPUACCEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"\0" * LARGE)
    time.sleep(2 * SETTLED)
    remember(path.stat(), checksum(path))
    return path


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unchanged_file_is_known(file: Path) -> None:
    assert is_known(file.stat(), checksum(file))
    moved = file.rename(file.with_name("moved"))
    assert not is_known(moved.stat(), "0" * 64)


def test_a_change_in_place_with_its_time_set_back(file: Path) -> None:
    before, known = file.stat(), checksum(file)
    with file.open("r+b") as opened:
        opened.write(b"\1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not is_known(after, known)


def test_a_replaced_file(file: Path) -> None:
    known, other = checksum(file), file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)
    assert not is_known(file.stat(), known)


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(b"\0" * LARGE)
    status = path.stat()
    if time.time() - status.st_ctime < SETTLED:
        remember(status, "0" * 64)
        assert time.time() - status.st_ctime > SETTLED or not is_known(status, "0" * 64)


def test_small_files_are_always_hashed(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"\0" * (LARGE - 1))
    time.sleep(2 * SETTLED)
    remember(path.stat(), checksum(path))
    assert not is_known(path.stat(), checksum(path))


def test_a_cache_that_cannot_be_written(file: Path, cache: Path) -> None:
    for path in (cache / "verified").iterdir():
        path.unlink()
    (cache / "verified").rmdir()
    (cache / "verified").touch()
    remember(file.stat(), checksum(file))
    assert not is_known(file.stat(), checksum(file))
