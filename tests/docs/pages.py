"""The pages, and the code blocks in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

from tests.required import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.md"))


class Block(NamedTuple):
    """A fenced or indented block of code. An indented one has no language."""

    line: int
    language: str
    code: str


def code_blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in {"fence", "code_block"} and token.map:
            yield Block(token.map[0] + 1, token.info, token.content)


def inline_code(page: Path) -> Iterator[Block]:
    """Yield the code inside the text and the tables of a page, with its paragraph's line."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline" and token.map:
                yield Block(token.map[0] + 1, "", child.content)
