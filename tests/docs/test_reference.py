"""The reference has every public name, every option and every key of the JSON output."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cpuaccel
from tests.cli.conftest import Run
from tests.required import ROOT, requires

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "write_reference.py"
    spec = importlib.util.spec_from_file_location("write_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Other versions of typer and pydantic word some lines differently.
@requires("torch==2.13.*", "transformers==5.*")
@pytest.mark.parametrize("name", ["commands.md", "pipeline_file.md", "json.md"])
def test_generated_pages_are_current(script: ModuleType, name: str) -> None:
    assert (REFERENCE / name).read_text(encoding="utf-8") == script.pages()[name], (
        "run: python scripts/write_reference.py"
    )


def test_every_public_name_is_in_the_reference() -> None:
    page = (REFERENCE / "python.md").read_text(encoding="utf-8")
    directives = {line.removeprefix("::: ") for line in page.splitlines() if line.startswith(":::")}
    assert {f"cpuaccel.{name}" for name in cpuaccel.__all__} <= directives


def test_every_name_of_the_integrations_is_in_the_reference() -> None:
    page = (REFERENCE / "python.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: ([\w.]+)\n +options: .*members: \[(.*?)\]", page, re.M))
    documented = {f"{module}.{name}" for module, names in named for name in names.split(", ")}
    packages = (ROOT / "cpuaccel" / "integrations").glob("*/__init__.py")
    text = "".join(path.read_text(encoding="utf-8") for path in packages)
    exported = re.findall(r"^from ([\w.]+) import (\w+) as \2$", text, re.M)
    assert len(exported) > 20
    assert {f"{module}.{name}" for module, name in exported} - documented == set()


def _keys(page: str, command: str) -> set[str]:
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{command}` |")]
    return set(row.split("`")[1::2])


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("plugins",),
        ("explain", "config:bert-tiny", "--backends", "jit"),
        ("bench", "config:bert-tiny", "--backends", "jit", "--rounds", "1", "--seq-len", "8"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_json_page_has_every_key(run: Run, arguments: tuple[str, ...]) -> None:
    page = (REFERENCE / "json.md").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(run(*arguments, "--json").out)
    assert data.pop("schema_version") == 1
    assert set(data) <= _keys(page, arguments[0])


def test_the_json_page_has_every_key_of_saving(run: Run, tmp_path: Path) -> None:
    page = (REFERENCE / "json.md").read_text(encoding="utf-8")
    ran = run(
        *("optimize", "config:bert-tiny", "--backends", "jit", "--json"),
        *("--output", tmp_path / "saved"),
    )
    report = set(page.partition("The report (")[2].partition("\n## ")[0].split("`")[1::2])
    assert set(ran.data) - {"schema_version"} <= _keys(page, "optimize") | report
    inspected = run("inspect", tmp_path / "saved", "--json").data
    schema = page.partition("## Summary\n```json\n")[2].partition("```")[0]
    assert set(inspected) - {"schema_version"} == set(json.loads(schema)["properties"])
