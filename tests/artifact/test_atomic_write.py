import errno
from pathlib import Path

import pytest

import cpuaccel
from cpuaccel.artifact import atomic_write
from cpuaccel.artifact.atomic_write import replace_folder
from tests.conftest import Python


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder: Path, text: str) -> None:
    with replace_folder(folder) as new:
        (new / "pipeline.toml").write_text(text)


@pytest.fixture(params=["exchanged", "renamed twice"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems can't exchange two folders."""
    if request.param == "renamed twice":
        monkeypatch.setattr(atomic_write, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("_way")
def test_a_folder_is_created_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "a"
    write(folder, "old")
    (folder / "report.json").write_text("in the old folder only")
    write(folder, "new")
    assert contents(folder) == {"pipeline.toml": b"new"}
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_is_replaced_and_a_symbolic_link_kept(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "current").symlink_to("v1")
    write(tmp_path / "current", "new")
    assert (tmp_path / "current").is_symlink()
    assert contents(tmp_path / "v1") == {"pipeline.toml": b"new"}


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), SystemExit()]
)
def test_the_folder_is_unchanged_if_writing_fails(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with replace_folder(tmp_path / "a") as new:
            (new / "pipeline.toml").write_text("half")
            raise error

    write(tmp_path / "a", "old")
    with pytest.raises(type(error)):
        fail()
    assert contents(tmp_path / "a") == {"pipeline.toml": b"old"}
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_folder_is_restored_if_the_second_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", "old")
    monkeypatch.setattr(atomic_write, "_exchange", lambda one, other: False)
    rename, calls = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 3:  # the first fails because the folder exists, the second moves it aside
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", "new")
    assert contents(tmp_path / "a") == {"pipeline.toml": b"old"}
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a", "old")
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(cpuaccel.ArtifactError, match=r"thesis\.tex\. Choose another folder"):
        write(tmp_path / "a", "new")
    assert contents(tmp_path / "a") == {"pipeline.toml": b"old", "thesis.tex": b"years of work"}


SAVE = """
import resource, signal, sys
from pathlib import Path
import cpuaccel
from tests.fake_backends import batch, encoder

folder = Path(sys.argv[1])
fast = cpuaccel.optimize(encoder(), ["jit"], example_inputs=batch())
fast.save(folder)
sizes = sorted({path.stat().st_size for path in folder.iterdir()})
"""

FULL = """
for size in sizes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, resource.RLIM_INFINITY))
    try:
        fast.save(folder)
    except cpuaccel.ArtifactError as error:
        assert "The folder is unchanged. Free disk space, or choose another" in str(error)
    else:
        raise AssertionError(f"files of {size} bytes were written")
    assert list(folder.parent.iterdir()) == [folder]
    cpuaccel.load(folder, encoder())
print(len(sizes))
"""

INTERRUPTED = """
turn, seen = 0, 0

def interrupt(event, arguments):
    global seen
    if event in ("open", "os.rename", "os.mkdir", "os.chmod"):
        if turn and str(arguments[0]).startswith(str(folder.parent)):
            seen += 1
            if seen == turn:
                raise KeyboardInterrupt

sys.addaudithook(interrupt)
interrupted, finished = 0, False
while not finished:
    turn, seen = interrupted + 1, 0
    try:
        fast.save(folder)
        finished = True
    except KeyboardInterrupt:
        interrupted += 1
    turn = 0
    assert list(folder.parent.iterdir()) == [folder]
    cpuaccel.load(folder, encoder())
print(interrupted)
"""


@pytest.mark.parametrize("code", [FULL, INTERRUPTED], ids=["disk full", "interrupted"])
def test_the_folder_is_unchanged_wherever_saving_stops(
    code: str, tmp_path: Path, python: Python
) -> None:
    """Fail at every file size (a limit stands for a full disk), and at every file operation."""
    root = Path(__file__).parents[2]
    ran = python(SAVE + code, str(tmp_path / "a"), path=(root, root / "plugins"))
    assert int(ran.stdout) >= 6
