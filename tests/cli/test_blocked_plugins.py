"""Plugins that the user blocks are shown by the commands and imported by none."""

import json
from pathlib import Path

import pytest

import cpuaccel
from tests.conftest import Python

COMMAND = """
import sys
from cpuaccel.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("imported" if "cpuaccel_plugins.ipex" in sys.modules else "not imported", file=sys.stderr)
"""
IPEX = f"ipex (cpuaccel {cpuaccel.__version__})"
SHOWN = {
    "doctor": f"plugin {IPEX} is blocked by ",
    "plugins": f"Blocked\n  {IPEX}: by ",
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "pipeline.toml"
    path.write_text('version = 1\ndisable_plugins = ["ipex"]\n[[steps]]\nbackend = "jit"\n')
    return str(path)


@pytest.mark.parametrize("command", SHOWN)
@pytest.mark.parametrize("by", ["environment", "file"])
def test_blocked_plugins_are_shown_with_the_source_of_the_block(
    python: Python, monkeypatch: pytest.MonkeyPatch, file: str, command: str, by: str
) -> None:
    arguments = [command]
    source = "CPUACCEL_DISABLE_PLUGINS"
    if by == "environment":
        monkeypatch.setenv(source, "ipex")
    else:
        arguments, source = [command, "--pipeline", file], file
    done = python(COMMAND, *arguments)
    assert done.stderr == "not imported\n"
    assert f"{SHOWN[command]}{source}\n" in done.stdout
    done = python(COMMAND, *arguments, "--json")
    assert done.stderr == "not imported\n"
    data = json.loads(done.stdout)
    assert data["blocked_plugins"] == [{"plugin": IPEX, "by": source}]
    offered = data.get("backends") or [b["name"] for p in data["plugins"] for b in p["backends"]]
    assert "jit" in offered
    assert "ipex" not in offered


@pytest.mark.parametrize("command", SHOWN)
def test_no_section_without_blocked_plugins(
    python: Python, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("CPUACCEL_DISABLE_PLUGINS", raising=False)
    done = python(COMMAND, command)
    assert done.stderr == "imported\n"
    assert "blocked" not in done.stdout.lower()


@pytest.mark.parametrize(
    "command",
    [
        ("explain",),
        ("bench", "--backends", "jit", "--rounds", "1", "--batch-size", "1", "--seq-len", "8"),
    ],
    ids=lambda command: command[0],
)
def test_plugins_that_a_pipeline_file_blocks_are_not_imported(
    python: Python, file: str, command: tuple[str, ...]
) -> None:
    name, *options = command
    done = python(COMMAND, name, "config:bert-tiny", "--pipeline", file, *options)
    assert done.stderr.endswith("not imported\n")


def test_a_missing_pipeline_file(python: Python, tmp_path: Path) -> None:
    done = python(COMMAND, "doctor", "--pipeline", str(tmp_path / "absent.toml"), check=False)
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
