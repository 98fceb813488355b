"""The TOML blocks of the pages: pipeline files are valid, the others are TOML."""

import tomllib
from pathlib import Path

import pytest

from cpuaccel.errors import PipelineError
from cpuaccel.planning.resolve import resolve
from cpuaccel.planning.toml import parse_pipeline
from cpuaccel.plugin.manager import plugin_host
from tests.docs.pages import EXAMPLES, PAGES, code_blocks
from tests.required import ROOT

BLOCKS = [
    pytest.param(block.code, id=f"{page.relative_to(ROOT)}:{block.line}")
    for page in [*PAGES, *EXAMPLES]
    for block in code_blocks(page)
    if block.language == "toml"
]
PACKAGING = {"build-system", "project", "tool"}
"""The tables of a `pyproject.toml`."""


def check(code: str) -> None:
    """Parse a block, and resolve its steps and their options if it is a pipeline."""
    table = tomllib.loads(code)
    if not table.keys() <= PACKAGING:
        resolve(parse_pipeline(code.encode(), Path("pipeline.toml")), plugin_host())
    elif "cpuaccel" in table.get("tool", {}):
        resolve(parse_pipeline(code.encode(), Path("pyproject.toml")), plugin_host())


@pytest.mark.parametrize("code", BLOCKS)
def test_it_is_valid(code: str) -> None:
    check(code)


def test_the_blocks_are_found() -> None:
    assert len(BLOCKS) > 3


@pytest.mark.parametrize(
    "code",
    [
        'version = 1\nstep = [{ backend = "jit" }]',
        'version = 1\n[[steps]]\nbackend = "jot"',
        'version = 1\n[[steps]]\nbackend = "jit"\noptions = { frozen = true }',
        "[tool.cpuaccel]\nversion = 2\nsteps = []",
    ],
)
def test_a_mistake_is_an_error(code: str) -> None:
    with pytest.raises(PipelineError):
        check(code)
