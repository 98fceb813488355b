"""The reference has every public name, every option and every key of the JSON output."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cpuaccel
from cpuaccel.plugin.manager import plugin_host
from tests.caches import use_cache
from tests.cli.conftest import Run
from tests.cli.generate.models import CHAT, make_llama, saved
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


BRIEF = ("--seq-len", "8", "--threads", "1")
EXAMPLES = {
    "doctor": ("doctor",),
    "plugins": ("plugins",),
    "explain": ("explain", "config:bert-tiny", "--backends", "jit"),
    "bench": ("bench", "config:bert-tiny", "--backends", "jit", "--rounds", "1", *BRIEF),
}
ON_MODERN = {
    "explain": ("explain", "config:bert-tiny", "--backends", "auto"),
    "bench --generate": (
        *("bench", "config:llama-tiny", "--generate", "2", "--prompt-len", "4"),
        *("--backends", "jit", "--rounds", "1", "--threads", "1"),
    ),
    "tune": ("tune", "config:bert-tiny", "--budget", "2", *BRIEF),
    "generate": ("generate", "MODEL", "w3 w4", "--max-new-tokens", "2", "--backends", "jit"),
}


@pytest.fixture
def jit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a search try one backend, and keep nothing outside the test's folder."""
    others = set(plugin_host().backends) - {"jit", "openvino_int8"}  # which `openvino` offers
    monkeypatch.setenv("CPUACCEL_DISABLE_PLUGINS", ",".join(others))
    use_cache(tmp_path / "cache", monkeypatch)
    plugin_host.cache_clear()
    yield
    plugin_host.cache_clear()


def _keys(page: str, row: str) -> set[str]:
    """The keys that the page has for a command."""
    rows = [line for line in page.splitlines() if line.startswith(f"| `{row}` |")]
    assert len(rows) == 1, row
    keys = set(rows[0].split("`")[1::2])
    if "| the same, and" in rows[0]:
        keys |= _keys(page, row.partition(" --")[0])
    if "and the report |" in rows[0]:
        keys |= set(page.partition("The report (")[2].partition("\n## ")[0].split("`")[1::2])
    return keys


@pytest.mark.parametrize("row", EXAMPLES)
def test_the_json_page_has_every_key(run: Run, row: str) -> None:
    page = (REFERENCE / "json.md").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(run(*EXAMPLES[row], "--json").out)
    assert data.pop("schema_version") == 1
    assert set(data) <= _keys(page, row)


@requires("torch==2.13.*", "transformers==5.*")
@pytest.mark.usefixtures("jit_alone")
@pytest.mark.parametrize("row", ON_MODERN)
def test_the_json_page_has_every_key_on_the_modern_stack(
    run: Run, row: str, tmp_path: Path
) -> None:
    page = (REFERENCE / "json.md").read_text(encoding="utf-8")
    arguments = list(ON_MODERN[row])
    if "MODEL" in arguments:
        model = saved(make_llama(), CHAT, tmp_path / "llama")
        arguments[arguments.index("MODEL")] = str(model)
    ran = run(*arguments, "--json")
    assert ran.code == 0, ran.err
    assert set(ran.data) - {"schema_version"} <= _keys(page, row)


def test_the_json_page_has_every_key_of_saving(run: Run, tmp_path: Path) -> None:
    page = (REFERENCE / "json.md").read_text(encoding="utf-8")
    ran = run(
        *("optimize", "config:bert-tiny", "--backends", "jit", "--json"),
        *("--output", tmp_path / "saved"),
    )
    assert set(ran.data) - {"schema_version"} <= _keys(page, "optimize")
    inspected = run("inspect", tmp_path / "saved", "--json").data
    schema = page.partition("## Summary\n```json\n")[2].partition("```")[0]
    assert set(inspected) - {"schema_version"} == set(json.loads(schema)["properties"])
