import importlib.metadata
import json
from pathlib import Path

import pytest

import cpuaccel
from cpuaccel.cli.plugins import requirements_table
from cpuaccel.plugin import manager as plugins
from cpuaccel.plugin.manager import PluginHost
from tests.cli.backends import Absent, Faithful
from tests.cli.conftest import Run

README = Path(__file__).parents[2] / "README.md"


def test_backends_with_their_options(run: Run) -> None:
    ran = run("plugins")
    assert ran.code == 0
    assert "jit   module -> script" in ran.out
    assert "freeze: bool, default True" in ran.out


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
def test_a_broken_plugin_is_shown_with_its_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    broken = importlib.metadata.EntryPoint("sad", "no_such_module_anywhere", "cpuaccel")
    found = PluginHost([broken])
    monkeypatch.setattr(plugins, "plugin_host", lambda: found)
    ran = run(*arguments)
    assert ran.code == 0
    assert "sad" in ran.out
    assert "No module named 'no_such_module_anywhere'" in ran.out
    (told,) = json.loads(run(*arguments, "--json").out)["broken_plugins"]
    assert told["plugin"] == "sad"


def test_the_readme_says_what_the_plugins_declare() -> None:
    own = {
        name: backend
        for name, backend in cpuaccel.backends().items()
        if backend.__module__.startswith("cpuaccel_plugins.")
    }
    _, _, rest = README.read_text(encoding="utf-8").partition("<!-- requirements -->\n")
    table, end, _ = rest.partition("\n<!-- /requirements -->")
    assert end, "README.md has lost its marks around the table"
    assert table == requirements_table(own), "replace it by what `plugins --markdown` prints"


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


def test_the_command_prints_the_same(run: Run) -> None:
    ran = run("plugins", "--markdown")
    assert ran.code == 0
    assert ran.out == requirements_table(cpuaccel.backends()) + "\n"


def test_json_and_markdown_exclude_each_other(run: Run) -> None:
    ran = run("plugins", "--markdown", "--json")
    assert ran.code == 2
    assert "Pass one of the two" in ran.err
