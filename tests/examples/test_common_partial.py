"""What is finished is kept, as a whole, and only for the same run."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from common.exits import ExampleError, Interrupted
from common.files import make_output_dir, write_json
from common.partial import PartialResults

FINGERPRINT = {"model": "1", "data": "2"}


@contextmanager
def no_room(most: int) -> Iterator[None]:
    """Let the system refuse to write more than so many bytes into a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_chunk_is_kept_and_found_again(tmp_path: Path) -> None:
    PartialResults(tmp_path / "p", FINGERPRINT, afresh=False).save(3, {"a": np.arange(4.0)})
    again = PartialResults(tmp_path / "p", FINGERPRINT, afresh=False)
    found = again.load(3)
    assert found is not None
    np.testing.assert_array_equal(found["a"], np.arange(4.0))
    assert again.load(2) is None


def test_another_run_starts_afresh_and_says_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PartialResults(tmp_path / "p", FINGERPRINT, afresh=False).save(0, {"a": np.arange(4.0)})
    other = PartialResults(tmp_path / "p", {**FINGERPRINT, "data": "3"}, afresh=False)
    assert other.load(0) is None
    assert "had other data: starting afresh" in capsys.readouterr().err


def test_to_start_afresh_can_be_asked_for(tmp_path: Path) -> None:
    PartialResults(tmp_path / "p", FINGERPRINT, afresh=False).save(0, {"a": np.arange(4.0)})
    assert PartialResults(tmp_path / "p", FINGERPRINT, afresh=True).load(0) is None


def test_a_broken_chunk_counts_as_not_finished(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, afresh=False)
    partial.save(0, {"a": np.arange(400.0)})
    (file,) = (tmp_path / "p").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert partial.load(0) is None


def test_a_pickle_in_a_chunk_is_never_run(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, afresh=False)
    partial.save(0, {"a": np.arange(4.0)})
    (file,) = (tmp_path / "p").glob("*.npz")
    np.savez(file, a=np.array([object()], dtype=object))
    assert partial.load(0) is None


def test_when_all_went_well_nothing_is_left(tmp_path: Path) -> None:
    with PartialResults(tmp_path / "p", FINGERPRINT, afresh=False) as partial:
        partial.save(0, {"a": np.arange(4.0)})
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_tells_how_to_go_on(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, afresh=False)
    partial.save(0, {"a": np.arange(4.0)})
    told = r"1 finished chunks are kept in .*run the same command"
    with pytest.raises(Interrupted, match=told), partial:
        raise KeyboardInterrupt
    assert partial.load(0) is not None


def test_where_there_is_no_room_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with no_room(100), pytest.raises(ExampleError, match=r"can't be written: File too large\."):
        write_json(path, {"a": "long" * 100})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_chunk_that_finds_no_room_is_not_half_there(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, afresh=False)
    with no_room(1000), pytest.raises(ExampleError, match="Make room there"):
        partial.save(0, {"a": np.arange(1000.0)})
    assert [file.name for file in partial.folder.iterdir()] == ["fingerprint.json"]


def test_an_output_folder_that_can_not_be_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExampleError, match=r"--output_dir .*file/out .*Not a directory"):
        make_output_dir(tmp_path / "file" / "out")
