"""Plugins that the user blocks are shown by the commands and imported by none."""

import json
from pathlib import Path

import pytest

import cpuaccel
from tests.cli.conftest import Run
from tests.conftest import Python

COMMANDS = """
import contextlib, sys
from cpuaccel.cli.main import main
for line in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        main(line.split())
    print("===")
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


@pytest.mark.parametrize("by", ["environment", "file"])
def test_blocked_plugins_are_shown_with_the_source_of_the_block(
    python: Python, monkeypatch: pytest.MonkeyPatch, file: str, by: str
) -> None:
    more, source = "", "CPUACCEL_DISABLE_PLUGINS"
    if by == "environment":
        monkeypatch.setenv(source, "ipex")
    else:
        more, source = f" --pipeline {file}", file
    lines = [f"{command}{form}{more}" for command in SHOWN for form in ("", " --json")]
    done = python(COMMANDS, *lines)
    assert done.stderr == "not imported\n"
    shown = iter(done.stdout.split("===\n"))
    for line in SHOWN.values():
        assert f"{line}{source}\n" in next(shown)
        data = json.loads(next(shown))
        assert data["blocked_plugins"] == [{"plugin": IPEX, "by": source}]
        of_plugins = [b["name"] for p in data.get("plugins", ()) for b in p["backends"]]
        offered = data.get("backends") or of_plugins
        assert "jit" in offered
        assert "ipex" not in offered


def test_no_section_without_blocked_plugins(
    python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CPUACCEL_DISABLE_PLUGINS", raising=False)
    done = python(COMMANDS, *SHOWN)
    assert done.stderr == "imported\n"
    assert "blocked" not in done.stdout.lower()


def test_plugins_that_a_pipeline_file_blocks_are_not_imported(python: Python, file: str) -> None:
    given = f"config:bert-tiny --pipeline {file}"
    shapes = "--rounds 1 --batch-size 1 --seq-len 8"
    done = python(COMMANDS, f"explain {given}", f"bench {given} --backends jit {shapes}")
    explained, measured, _ = done.stdout.split("===\n")
    assert "jit" in explained
    assert "jit" in measured
    assert done.stderr.endswith("not imported\n")


def test_a_missing_pipeline_file(run: Run, tmp_path: Path) -> None:
    ran = run("doctor", "--pipeline", tmp_path / "absent.toml")
    assert ran.code == 2
    assert "No such file or directory" in ran.err
    assert "Traceback" not in ran.err
