"""The command lines on the pages: the command line's own parser accepts them. None is run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import cpuaccel
from cpuaccel.cli.main import app
from tests.docs.pages import EXAMPLES, PAGES, code_blocks, inline_code
from tests.required import ROOT

OPERATORS = re.compile("[();<>|&]+")
Parameters = dict[str, object]


def command_lines(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the command lines of a page, each with its line or that of its paragraph.

    They are the lines of blocks, and code in the text that has an argument: `cpuaccel bench` and
    `cpuaccel tune --lock` in a sentence are names.
    """
    for block in code_blocks(page):
        if block.language != "python":
            lines = block.code.replace("\\\n", "").splitlines()
            yield from ((block.line, line) for line in lines if line.startswith("cpuaccel "))
    for block in inline_code(page):
        if re.match(r"cpuaccel [a-z]+ [^-]", block.code):
            yield block.line, block.code


def arguments(line: str) -> list[str]:
    """Split a line as a shell does, up to an operator such as `<`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [at for at, word in enumerate(words) if OPERATORS.fullmatch(word)]
    return words[1 : ends[0] if ends else None]


def parse(line: str) -> Parameters:
    """Parse a line with the parser of `cpuaccel`.

    Raises:
        SystemExit: a command, an option or an argument is wrong, as stderr says.
    """
    command = typer.main.get_command(app)
    command.callback = None  # it sets up logging
    parsed: Parameters = {}
    for one in command.commands.values():  # type: ignore[attr-defined]
        one.callback = lambda **parameters: parsed.update(parameters)
    with pytest.raises(SystemExit) as ended:
        command.main(arguments(line), prog_name="cpuaccel")
    if ended.value.code:
        raise ended.value
    return parsed


def _names(value: object) -> set[str]:
    texts = value if isinstance(value, list | tuple) else [value]
    return {name for text in texts if text is not None for name in str(text).split(",")}


LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}:{number}")
    for page in [*PAGES, *EXAMPLES, ROOT / "CONTRIBUTING.md"]
    for number, line in command_lines(page)
]


@pytest.mark.parametrize("line", LINES)
def test_the_parser_accepts_it(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        parameters = parse(line)
    except SystemExit:
        pytest.fail(f"{line}\n{capfd.readouterr().err}")
    assert _names(parameters.get("backends")) <= {*cpuaccel.backends(), "auto"}


def test_the_lines_are_found() -> None:
    assert len(LINES) > 30


@pytest.mark.parametrize(
    "line",
    [
        "cpuaccel bench config:bert-tiny --backend jit",
        "cpuaccel bench config:bert-tiny --rounds many",
        "cpuaccel bench",
        "cpuaccel bank config:bert-tiny",
        "cpuaccel inspect one two",
    ],
)
def test_a_mistake_is_an_error(line: str) -> None:
    with pytest.raises(SystemExit):
        parse(line)


def test_a_line_may_be_continued_and_redirected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "- Item:\n\n      cpuaccel bench a \\\n          --rounds 1\n\n"
        "`cpuaccel tune` and `cpuaccel generate b - < c.txt`\n\n```python\ncpuaccel .load()\n```\n"
    )
    found = [line for _, line in command_lines(page)]
    assert found == ["cpuaccel bench a     --rounds 1", "cpuaccel generate b - < c.txt"]
    assert arguments(found[1]) == ["generate", "b", "-"]
    assert parse(found[0])["rounds"] == 1
