"""The commands in the READMEs of the examples."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")
pytest.importorskip("accelerate", reason="the examples need the library accelerate")

EXAMPLES = Path(__file__).parents[2] / "examples"

COMMANDS = [
    (script, arguments)
    for script in sorted(EXAMPLES.glob("*/run_*.py"))
    for command in re.findall(
        r"^    python (\w+\.py (?:.*\\\n)*.*)", (script.parent / "README.md").read_text(), re.M
    )
    for name, *arguments in [shlex.split(command.replace("\\\n", " "))]
    if name == script.name
]

GENERATING = ("run_speech_recognition_seq2seq", "run_translation")


def test_each_example_has_a_command() -> None:
    assert {script for script, _ in COMMANDS} == set(EXAMPLES.glob("*/run_*.py"))


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
def test_the_commands_can_be_parsed(
    script: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.arguments import (
        DataArguments,
        GeneratingRunArguments,
        ModelArguments,
        RunArguments,
        parse,
    )
    from common.data import check_source

    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"{script.parent.name}.arguments")
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, DataArguments) and kind is not DataArguments
    ]
    generates = script.stem in GENERATING
    of_data = kinds[-1] if generates else kinds[0]  # of two scripts, the second one generates
    of_run = GeneratingRunArguments if generates else RunArguments
    _, data, run = parse((ModelArguments, of_data, of_run), "", arguments)
    options = [module.FOLDERS] if hasattr(module, "FOLDERS") else []
    check_source(
        data, [stage for stage in ("eval", "predict") if getattr(run, f"do_{stage}")], *options
    )
