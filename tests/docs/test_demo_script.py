"""The demo script's arguments. What it runs is tested where it is: bench, generate, Whisper."""

import runpy
from collections.abc import Callable

import pytest

from tests.required import ROOT, requires

pytestmark = requires("transformers==5.*")

Demo = Callable[..., int]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Run the script in this process; return its exit code."""

    def run(*arguments: str) -> int:
        script = str(ROOT / "scripts" / "demo.py")
        monkeypatch.setattr("sys.argv", [script, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def test_it_explains_its_options(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo("--help") == 0
    assert "--whisper" in capsys.readouterr().out


@pytest.mark.parametrize("alone", ["--whisper", "--recording"])
def test_whisper_needs_a_recording(
    demo: Demo, capsys: pytest.CaptureFixture[str], alone: str
) -> None:
    assert demo(alone, "somewhere") == 2
    assert "pass --whisper and --recording" in capsys.readouterr().err
