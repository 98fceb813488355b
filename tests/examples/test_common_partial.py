"""Finished chunks are kept completely, and only for the same run."""

import contextlib
import json
import resource
import signal
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
    """Limit the size of files, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_chunk_is_saved_and_loaded(tmp_path: Path) -> None:
    PartialResults(tmp_path / "p", FINGERPRINT, restart=False).save(3, {"a": np.arange(4.0)})
    again = PartialResults(tmp_path / "p", FINGERPRINT, restart=False)
    found = again.load(3)
    assert found is not None
    np.testing.assert_array_equal(found["a"], np.arange(4.0))
    assert again.load(2) is None


def test_another_run_starts_over_and_names_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PartialResults(tmp_path / "p", FINGERPRINT, restart=False).save(0, {"a": np.arange(4.0)})
    other = PartialResults(tmp_path / "p", {**FINGERPRINT, "data": "3"}, restart=False)
    assert other.load(0) is None
    assert "had other data: starting over" in capsys.readouterr().err


def test_restart_drops_all_chunks(tmp_path: Path) -> None:
    PartialResults(tmp_path / "p", FINGERPRINT, restart=False).save(0, {"a": np.arange(4.0)})
    assert PartialResults(tmp_path / "p", FINGERPRINT, restart=True).load(0) is None


def test_a_corrupt_chunk_counts_as_not_finished(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, restart=False)
    partial.save(0, {"a": np.arange(400.0)})
    (file,) = (tmp_path / "p").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert partial.load(0) is None


def test_a_pickle_in_a_chunk_is_not_loaded(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, restart=False)
    partial.save(0, {"a": np.arange(4.0)})
    (file,) = (tmp_path / "p").glob("*.npz")
    np.savez(file, a=np.array([object()], dtype=object))
    assert partial.load(0) is None


def test_success_leaves_nothing(tmp_path: Path) -> None:
    with PartialResults(tmp_path / "p", FINGERPRINT, restart=False) as partial:
        partial.save(0, {"a": np.arange(4.0)})
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_says_how_to_continue(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, restart=False)
    partial.save(0, {"a": np.arange(4.0)})
    message = r"1 finished chunks are kept in .*run the same command"
    with pytest.raises(Interrupted, match=message), partial:
        raise KeyboardInterrupt
    assert partial.load(0) is not None


def test_an_interruption_that_a_library_ignores_ends_the_run_after_the_chunk(
    tmp_path: Path,
) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, restart=False)

    def ignore_and_save() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        partial.save(0, {"a": np.arange(4.0)})

    with pytest.raises(Interrupted, match="1 finished chunks are kept"), partial:
        ignore_and_save()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_space_the_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with no_room(100), pytest.raises(ExampleError, match=r"can't be written: File too large\."):
        write_json(path, {"a": "long" * 100})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_without_space_no_partial_chunk_is_left(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "p", FINGERPRINT, restart=False)
    with no_room(1000), pytest.raises(ExampleError, match="Free some space"):
        partial.save(0, {"a": np.arange(1000.0)})
    assert [file.name for file in partial.folder.iterdir()] == ["fingerprint.json"]


def test_an_unusable_output_folder_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExampleError, match=r"--output_dir .*file/out .*Not a directory"):
        make_output_dir(tmp_path / "file" / "out")
