"""The demo script's arguments. What it runs is tested where it is: bench, generate, Whisper."""

import subprocess
import sys

import pytest

from tests.required import ROOT, requires

pytestmark = requires("transformers==5.*")


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_explains_its_options() -> None:
    shown = demo("--help")
    assert shown.returncode == 0, shown.stderr
    assert "--whisper" in shown.stdout


@pytest.mark.parametrize("alone", ["--whisper", "--recording"])
def test_whisper_needs_a_recording(alone: str) -> None:
    refused = demo(alone, "somewhere")
    assert refused.returncode == 2
    assert "pass --whisper and --recording" in refused.stderr
