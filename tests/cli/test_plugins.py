import importlib.metadata
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest

import cpuaccel
from cpuaccel.cli.plugins import as_toml, requirements_table, type_name
from cpuaccel.plugin import manager as plugins
from cpuaccel.plugin.manager import PluginHost
from tests.cli.backends import Absent, Faithful
from tests.cli.conftest import Run

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


def test_it_shows_backends_and_options(run: Run) -> None:
    ran = run("plugins")
    assert ran.code == 0
    assert "jit   module -> script" in ran.out
    assert "freeze: bool, default true" in ran.out
    assert "max_error: float or none, default not set" in ran.out


def test_as_json(run: Run) -> None:
    data = run("plugins", "--json").data
    offered = {b["name"]: b for p in data["plugins"] for b in p["backends"]}
    assert offered["jit"]["takes"] == "module"
    assert offered["jit"]["gives"] == "script"
    assert offered["jit"]["requires"] == [["torch>=1.13"]]
    freeze = {"name": "freeze", "type": "bool", "default": True}
    assert freeze in offered["jit"]["options"]
    assert data["broken_plugins"] == []


@pytest.mark.parametrize("arguments", [("plugins",), ("doctor",)])
def test_a_plugin_that_fails_to_load_is_shown_with_the_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    entry_point = importlib.metadata.EntryPoint("sad", "no_such_module_anywhere", "cpuaccel")
    found = PluginHost([entry_point])
    monkeypatch.setattr(plugins, "plugin_host", lambda: found)
    ran = run(*arguments)
    assert ran.code == 0
    assert "sad" in ran.out
    assert "No module named 'no_such_module_anywhere'" in ran.out
    (broken,) = json.loads(run(*arguments, "--json").out)["broken_plugins"]
    assert broken["plugin"] == "sad"


def test_the_docs_have_the_table_of_requirements() -> None:
    own = {
        name: backend
        for name, backend in cpuaccel.backends().items()
        if backend.__module__.startswith("cpuaccel_plugins.")
    }
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- requirements -->\n")
    table, end, _ = rest.partition("\n<!-- /requirements -->")
    assert end, "docs/backends.md needs the comments around the table"
    assert table == requirements_table(own), "replace it with what `plugins --markdown` prints"


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (float | None, "float or none"),
        (Annotated[float, "positive"] | None, "float or none"),
        (Literal["O0", "O1"], '"O0" or "O1"'),
        (Literal[4, 8], "4 or 8"),
        (tuple[str, ...], "list of str"),
        (cpuaccel.Form, '"module" or "script" or "compiled"'),
        (Path | None, "Path or none"),
    ],
)
def test_types_are_named_as_users_write_them(annotation: object, name: str) -> None:
    assert type_name(annotation) == name


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (None, "not set"),
        (True, "true"),
        (0.5, "0.5"),
        (("a", "b"), '["a", "b"]'),
        (cpuaccel.Form.MODULE, '"module"'),
    ],
)
def test_defaults_are_written_as_in_toml(default: object, text: str) -> None:
    assert as_toml(default) == text


def test_a_row_for_each_set_of_requirements() -> None:
    class Choosing(Absent):
        requires = (("torch>=2.4,<3", "one>=1,<2", "two"), ("three==1.*",))

    assert requirements_table({"faithful": Faithful, "choosing": Choosing}).splitlines() == [
        "| backend | torch | and |",
        "|---|---|---|",
        "| `choosing` | >=2.4, <3 | one >=1, <2 and two |",
        "| or | any | three ==1.* |",
        "| `faithful` | any | nothing else |",
    ]


def test_the_command_prints_the_table(run: Run) -> None:
    ran = run("plugins", "--markdown")
    assert ran.code == 0
    assert ran.out == requirements_table(cpuaccel.backends()) + "\n"


def test_json_and_markdown_exclude_each_other(run: Run) -> None:
    ran = run("plugins", "--markdown", "--json")
    assert ran.code == 2
    assert "pass one of --json and --markdown" in ran.err
