"""Folders in a cache: they stay while a process uses them, and go afterwards."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import os, sys
from pathlib import Path
from cpuaccel.integrations.workers.folders import used_folder

def write(folder):
    (folder / "file").write_text("whole")
    if "killed" in sys.argv:
        os.kill(os.getpid(), 9)

folder = used_folder(Path(sys.argv[1]), write)
print((folder / "file").read_text(), flush=True)
sys.stdin.read()
"""


def begin(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_folder_stays_while_a_process_uses_it(tmp_path: Path) -> None:
    one, two, three, four = (tmp_path / "cache" / name for name in ("1", "2", "3", "4"))
    using = [begin(one), begin(one), begin(two)]
    assert {line(process) for process in using} == {"whole"}
    assert one.is_dir()
    using[0].kill()
    using[0].communicate()
    third = begin(three)
    assert line(third) == "whole"
    assert one.is_dir()  # its second process lives
    for process in (*using[1:], third):
        process.kill()
        process.communicate()
    last = begin(four)
    assert line(last) == "whole"
    last.communicate()
    assert {path.name for path in four.parent.iterdir()} == {"4", "4.lock"}


def test_a_process_that_was_killed_while_it_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "1"
    killed = begin(folder, "killed")
    killed.communicate()
    assert not folder.exists()
    second = begin(folder)
    assert line(second) == "whole"
    second.communicate()
    assert {path.name for path in folder.parent.iterdir()} == {"1", "1.lock"}


def test_many_processes_at_the_same_time(tmp_path: Path) -> None:
    folders = [tmp_path / "cache" / str(number % 3) for number in range(9)]
    processes = [begin(folder) for folder in folders]
    assert [line(process) for process in processes] == ["whole"] * 9
    for process in processes:
        process.communicate()
